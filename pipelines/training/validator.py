"""Validation during training: both kinds of weights, to TensorBoard and as one line."""

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

# People in each grid of pictures.
SHOWN = 12


def line(step: int, results: dict, best: bool) -> str:
    """One line of a validation's means."""
    means = {kind: part["PCKh@0.5"]["mean14"] for kind, part in results.items()}
    text = ", ".join(f"{kind} {mean:.2f}" for kind, mean in means.items())
    return f"step {step}: validation mean14 PCKh@0.5 {text}{' (best)' if best else ''}"


def make(
    config: Config,
    state: TrainState,
    whole: tf.train.Checkpoint,
    info: tfrecords.DatasetInfo,
    options: augmentation.BatchOptions,
):
    """A function that validates both kinds of weights, logs them and keeps the best state.

    With several workers the chief alone validates, on copies of the networks on one of its devices,
    and the best state then holds no optimizer. All must call the function at the same step: batch
    norm's averages are means over all replicas.

    Args:
      config: of the run; the best state is kept in its workdir.
      state: of the training.
      whole: what is kept, ``state.checkpoint()``.
      info: the record set.
      options: of training batches, from which batch norm's statistics are recomputed.

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
        return _make_alone(config, state.strategy, info, networks, whole, options)
    if not devices.is_chief(state.strategy):
        return lambda writer, step: _values(networks)
    alone = devices.make_strategy("one")
    with alone.scope():
        arguments = {**build_arguments(config, info.skeleton), "sync_bn": False}
        copies = {weights: model.build(**arguments) for weights in networks}
    whole = checkpoints.state(state.step, copies["raw"], copies.get("averaged"), None)
    validate_copies = _make_alone(config, alone, info, copies, whole, options)

    def validate(writer, step: int) -> None:
        for weights, values in _values(networks).items():
            copies[weights].set_weights(values)
        validate_copies(writer, step)

    return validate


def _values(networks: dict) -> dict:
    return {weights: network.get_weights() for weights, network in networks.items()}


def _make_alone(config: Config, strategy, info, networks: dict, whole, options):
    tfrecords.check_shards(info, "validation")
    how = evaluate.how(config)
    facts, mirror = input_pipeline.facts(info, "validation"), info.skeleton.mirror
    truth = ground_truth.of_records(info, "validation", facts)
    predicts = {
        weights: forward.make_predict(strategy, one, mirror=mirror, mean=options.mean, **how)
        for weights, one in networks.items()
    }
    recomputed = {
        weights: precise_bn.make(
            strategy,
            one,
            info,
            options,
            examples=config.precise_bn_examples,
            batch_size=config.evaluation_batch_size,
        )
        for weights, one in networks.items()
    }
    batch = devices.round_up(config.evaluation_batch_size, strategy)
    dataset = input_pipeline.evaluation(info, "validation", batch=batch)
    last = networks.get("averaged", networks["raw"])
    even = samples.evenly(len(facts["row"]), SHOWN)

    def validate(writer, step: int) -> None:
        with contextlib.ExitStack() as statistics:
            for weights, recompute in recomputed.items():
                stale = statistics.enter_context(recompute())
                summaries.write_staleness(writer, step, weights, stale)
            results = score(writer, step)
            best = checkpoints.save_best(whole, config.workdir, step, results)
        tqdm.tqdm.write(line(step, results, best))

    def score(writer, step: int) -> dict:
        results, errors = {}, None
        for weights, predict_batch in predicts.items():
            found, _ = evaluate.predict(strategy, predict_batch, dataset, facts)
            results[weights] = scoring.rows(found, truth)
            errors = scoring.errors(found, truth.joints, truth)
            summaries.write_validation(writer, step, weights, results[weights])
        summaries.write_thresholds(writer, step, weights, errors, info.skeleton)
        # The errors are now those of ``last``. One pass over the records for both choices.
        places = np.concatenate([even, scoring.worst(errors)[:SHOWN]])
        shown = samples.picture(last, info, "validation", places=places, mean=options.mean, **how)
        summaries.write_pictures(writer, step, shown, info.skeleton, len(even))
        return results

    return validate
