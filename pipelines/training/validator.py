"""Validation during training: raw and averaged weights, logged to TensorBoard and printed."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import tensorflow as tf
import tqdm

from hourglass import model
from pipelines import checkpoints, devices
from pipelines.config import Config, build_arguments
from pipelines.data import augmentation, input_pipeline, tfrecords
from pipelines.evaluation import evaluate, ground_truth, samples, scoring
from pipelines.inference import forward
from pipelines.training import diagnosis, precise_bn, run_dir, summaries
from pipelines.training.state import TrainState


def line(step: int, results: dict, best: bool) -> str:
    """One line of a validation's means."""
    means = {kind: part["PCKh@0.5"]["mean14"] for kind, part in results.items()}
    text = ", ".join(f"{kind} {mean:.2f}" for kind, mean in means.items())
    return f"step {step}: validation mean14 PCKh@0.5 {text}{' (best)' if best else ''}"


def make(
    config: Config,
    state: TrainState,
    checkpoint: tf.train.Checkpoint,
    info: tfrecords.DatasetInfo,
    options: augmentation.BatchOptions,
    signals: list[int],
):
    """A function that validates raw and averaged weights, logs results and keeps the best state.

    With several workers only the chief validates, on copies of the networks on one of its devices,
    and the best state then holds no optimizer. All workers must call the function at the same step:
    batch norm's averages are means over all replicas.

    Args:
      config: the run's; the best state is kept in its workdir.
      state: the training state.
      checkpoint: kept as the best state, ``state.checkpoint()``.
      info: the record set.
      options: of the training batches from which batch norm's statistics are recomputed.
      signals: received so far; the first stops a validation, which a resumed run makes up for.

    Returns:
      function(writer, step, loss, training) -> the signal that stopped the validation, or 0; loss
      and training PCKh are means since the validation before, NaN where there was no step.
    """
    if not info.splits.get("validation", {}).get("people"):
        print(f"{config.records} has no validation split: nothing will be validated")
        return lambda writer, step, loss, training: 0
    networks = {"raw": state.network}
    if state.averaged is not None:
        networks["averaged"] = state.averaged
    if not devices.is_multi_worker(state.strategy):
        return Validator(
            config, state.strategy, info, networks, checkpoint, options, signals
        ).validate
    if not devices.is_chief(state.strategy):

        def take_part(writer, step: int, loss: float, training: float) -> int:
            _values(networks)
            return 0

        return take_part
    one_device = devices.make_strategy("one")
    with one_device.scope():
        arguments = {**build_arguments(config, info.skeleton), "sync_bn": False}
        copies = {weights: model.build(**arguments) for weights in networks}
    checkpoint = checkpoints.state(state.step, copies["raw"], copies.get("averaged"), None)
    validator = Validator(config, one_device, info, copies, checkpoint, options, signals)

    def validate(writer, step: int, loss: float, training: float) -> int:
        for weights, values in _values(networks).items():
            copies[weights].set_weights(values)
        return validator.validate(writer, step, loss, training)

    return validate


def _values(networks: dict) -> dict:
    return {weights: network.get_weights() for weights, network in networks.items()}


class Stopped(Exception):
    """A signal arrived during a validation."""


class Validator:
    """Validation by one process, on its own networks."""

    def __init__(self, config: Config, strategy, info, networks, checkpoint, training, signals):
        """Read the validation split's truth; see ``make`` for the arguments.

        Raises ValueError for damaged records.
        """
        tfrecords.check_shards(info, "validation")
        self.info, self.strategy, self.workdir = info, strategy, config.workdir
        self.checkpoint, self.signals = checkpoint, signals
        self.options = evaluate.options_of(config, (training.mean, ""))
        self.labels = input_pipeline.labels(info, "validation")
        self.truth = ground_truth.of_records(info, "validation", self.labels)
        batch = devices.round_up(config.evaluation_batch_size, strategy)
        self.dataset = input_pipeline.evaluation(info, "validation", batch=batch)
        self.predicts = {
            weights: self._stoppable(
                forward.make_predict(strategy, network, info.skeleton.mirror, self.options)
            )
            for weights, network in networks.items()
        }
        self.networks, self.last = networks, [*networks][-1]
        self.told = False  # why the validation is low
        self.trained = {}  # the training's numbers by the best validation, if this process made it
        examples = config.precise_bn_examples
        self.recomputed = self._statistics(config, training, examples)
        unknown = precise_bn.unknown_statistics(networks[self.last])
        others = 0 if examples or unknown else Config.precise_bn_examples
        self.others = self._statistics(config, training, others)

    def _statistics(self, config: Config, training, examples: int) -> dict:
        """Kind of weights -> context with statistics of ``examples``; 0: the moving averages."""
        return {
            weights: precise_bn.make(
                self.strategy,
                network,
                self.info,
                training,
                examples=examples,
                batch_size=config.evaluation_batch_size,
                each_batch=self._check_signals,
            )
            for weights, network in self.networks.items()
        }

    def _check_signals(self) -> None:
        if self.signals:
            raise Stopped

    def _stoppable(self, predict_batch):
        def predict(batch):
            self._check_signals()
            return predict_batch(batch)

        return predict

    def validate(self, writer, step: int, loss: float, training: float) -> int:
        """Validate, unless a signal stops that; returns the signal, or 0. See ``make``."""
        try:
            self._validate(writer, step, loss, training)
        except Stopped:
            tqdm.tqdm.write(f"step {step}: validation stopped; the resumed run makes up for it")
            return self.signals[0]
        run_dir.note_validation(self.workdir, step)
        return 0

    def _validate(self, writer, step: int, loss: float, training: float) -> None:
        """Score each kind of weights with recomputed statistics; log, and keep the best state."""
        staleness, notes = {}, {"training_loss": loss, "training_mean14": training}
        notes = {name: value for name, value in notes.items() if math.isfinite(value)}
        with contextlib.ExitStack() as statistics:
            for weights, recompute in self.recomputed.items():
                staleness[weights] = statistics.enter_context(recompute())
                summaries.write_staleness(writer, step, weights, staleness[weights])
            results, errors = self._score(writer, step)
            self._write_last(writer, step, errors)
            best = checkpoints.save_best(self.checkpoint, self.workdir, step, results)
        self.trained = notes if best else self.trained
        tqdm.tqdm.write(line(step, results, best))
        means = {kind: part["PCKh@0.5"]["mean14"] for kind, part in results.items()}
        self._diagnose(writer, means, {"step": step, **notes}, staleness)

    def _diagnose(self, writer, means: dict, notes: dict, staleness: dict) -> None:
        """Print why a validation fell, once per fall; ``diagnosis`` has the rules.

        The best so far is read from best.json, so that a resumed run knows it; not the training's
        numbers by then, because best.json is the same whether a run was stopped or not.
        """
        kind = max(means, key=means.get)
        note = checkpoints.read_best(self.workdir)
        best = diagnosis.Validation(note["step"], note["mean14"], **self.trained)
        now = diagnosis.Validation(mean14=means[kind], **notes)
        low = diagnosis.is_low(best, now)
        if low and not self.told and diagnosis.needs_a_reason(best, now):
            evidence = self._evidence(kind, best, now, means, staleness[kind])
            text = diagnosis.sentence(evidence, Config.precise_bn_examples)
            tqdm.tqdm.write(text)
            summaries.write_diagnosis(writer, now.step, text)
            self.told = True
        self.told &= low

    def _evidence(self, kind: str, best, now, means: dict, staleness: float | None):
        """Score the same weights with the other statistics, too."""
        with self.others[kind]() as of_others:
            predict_batch = self.predicts[kind]
            predicted, _ = evaluate.predict(self.strategy, predict_batch, self.dataset, self.labels)
        measured = [value for value in (staleness, of_others) if value is not None]
        return diagnosis.Evidence(
            best,
            now,
            means,
            recomputed=staleness is not None,
            other=scoring.mean14(predicted, self.truth) if measured else math.nan,
            staleness=measured[0] if measured else math.nan,
        )

    def _score(self, writer, step: int) -> tuple[dict, np.ndarray]:
        """Scores of raw and averaged weights, and the errors [N, J] of the last."""
        results, errors = {}, None
        for weights, predict_batch in self.predicts.items():
            predicted, _ = evaluate.predict(self.strategy, predict_batch, self.dataset, self.labels)
            results[weights] = scoring.rows(predicted, self.truth)
            errors = scoring.errors(predicted, self.truth)
            summaries.write_validation(writer, step, weights, results[weights])
        return results, errors

    def _write_last(self, writer, step: int, errors: np.ndarray) -> None:
        """Curve and pictures of the last weights validated, from their errors [N, J]."""
        skeleton = self.info.skeleton
        summaries.write_thresholds(writer, step, self.last, errors, skeleton)
        fixed = samples.evenly(len(errors), samples.COUNT)
        # One pass over the records for both choices.
        indices = np.concatenate([fixed, scoring.worst(errors)[: samples.COUNT]])
        shown = samples.predict(
            self.networks[self.last], self.info, "validation", self.options, indices
        )
        summaries.write_pictures(writer, step, shown, skeleton, len(fixed))
