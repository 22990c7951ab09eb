"""Validation during training: raw and averaged weights, logged to TensorBoard and printed."""

from __future__ import annotations

import contextlib

import numpy as np
import tensorflow as tf
import tqdm

from hourglass import model
from pipelines import checkpoints, devices
from pipelines.config import Config, build_arguments
from pipelines.data import augmentation, input_pipeline, tfrecords
from pipelines.evaluation import evaluate, ground_truth, samples, scoring
from pipelines.inference import forward
from pipelines.training import precise_bn, summaries
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

    Returns:
      function(writer, step).
    """
    if not info.splits.get("validation", {}).get("people"):
        print(f"{config.records} has no validation split: nothing will be validated")
        return lambda writer, step: None
    networks = {"raw": state.network}
    if state.averaged is not None:
        networks["averaged"] = state.averaged
    if not devices.is_multi_worker(state.strategy):
        return Validator(config, state.strategy, info, networks, checkpoint, options).validate
    if not devices.is_chief(state.strategy):
        return lambda writer, step: _values(networks)
    one_device = devices.make_strategy("one")
    with one_device.scope():
        arguments = {**build_arguments(config, info.skeleton), "sync_bn": False}
        copies = {weights: model.build(**arguments) for weights in networks}
    checkpoint = checkpoints.state(state.step, copies["raw"], copies.get("averaged"), None)
    validator = Validator(config, one_device, info, copies, checkpoint, options)

    def validate(writer, step: int) -> None:
        for weights, values in _values(networks).items():
            copies[weights].set_weights(values)
        validator.validate(writer, step)

    return validate


def _values(networks: dict) -> dict:
    return {weights: network.get_weights() for weights, network in networks.items()}


class Validator:
    """Validation by one process, on its own networks."""

    def __init__(self, config: Config, strategy, info, networks: dict, checkpoint, training):
        """Read the validation split's truth; see ``make`` for the arguments.

        Raises ValueError for damaged records.
        """
        tfrecords.check_shards(info, "validation")
        self.info, self.strategy, self.workdir = info, strategy, config.workdir
        self.checkpoint = checkpoint
        self.options = evaluate.options_of(config, (training.mean, ""))
        self.labels = input_pipeline.labels(info, "validation")
        self.truth = ground_truth.of_records(info, "validation", self.labels)
        batch = devices.round_up(config.evaluation_batch_size, strategy)
        self.dataset = input_pipeline.evaluation(info, "validation", batch=batch)
        self.predicts = {
            weights: forward.make_predict(strategy, network, info.skeleton.mirror, self.options)
            for weights, network in networks.items()
        }
        self.recomputed = {
            weights: precise_bn.make(
                strategy,
                network,
                info,
                training,
                examples=config.precise_bn_examples,
                batch_size=config.evaluation_batch_size,
            )
            for weights, network in networks.items()
        }
        self.networks, self.last = networks, [*networks][-1]

    def validate(self, writer, step: int) -> None:
        """Score each kind of weights with recomputed statistics; log, and keep the best state."""
        with contextlib.ExitStack() as statistics:
            for weights, recompute in self.recomputed.items():
                staleness = statistics.enter_context(recompute())
                summaries.write_staleness(writer, step, weights, staleness)
            results, errors = self._score(writer, step)
            self._write_last(writer, step, errors)
            best = checkpoints.save_best(self.checkpoint, self.workdir, step, results)
        tqdm.tqdm.write(line(step, results, best))

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
