"""Why validation collapses: the predecessor's recipe and ours, with one choice exchanged at a time.

Each run is scored at regular steps in four ways: by batch norm's moving averages, by the statistics
of the evaluated batch, by recomputed statistics, and by averaged weights with recomputed ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf
import tqdm

from hourglass import layers
from pipelines import checkpoint_files, checkpoints, devices
from pipelines.config import Config
from pipelines.data import input_pipeline, tfrecords
from pipelines.data.cropping import Geometry
from pipelines.data.readers.table import READERS
from pipelines.data.synthetic import scene
from pipelines.data.write_tfrecords import convert
from pipelines.evaluation import evaluate, ground_truth, scoring
from pipelines.inference import forward
from pipelines.io import read_whole, write_atomically
from pipelines.training import precise_bn, run_dir, schedule, train, train_step
from pipelines.training.progress import Log

SCORES_FILE = "scores.json"
SCORINGS = ("moving averages", "the batch's own", "recomputed", "recomputed, averaged weights")
EVALUATIONS = 12  # of each run
FORGETS_AT = (4, 8)  # evaluations after which a run that forgets has no optimizer state
PEOPLE = 1800  # to draw, 1,500 of them to train on

# A choice -> the fields of Config that are exchanged together.
CHOICES = {
    "learning rate": ("learning_rate", "lr_schedule", "lr_milestones"),
    "batch norm": ("bn_momentum", "bn_epsilon"),
    "RMSprop": ("rmsprop_rho", "rmsprop_epsilon"),
    "occluded joints": ("occluded",),
    "optimizer state on resuming": (),
}
_RESUMING = "optimizer state on resuming"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A run: its Config, and whether it loses the optimizer's state twice, as when resumed."""

    config: Config
    forgets: bool


def variants(theirs: Config, ours: Config) -> dict[str, Variant]:
    """The runs by name, those that matter most first.

    Args:
      theirs: the predecessor's recipe.
      ours: the same network and data with our choices.
    """
    whole, own = Variant(theirs, True), Variant(ours, False)
    constant = dataclasses.replace(ours, lr_schedule="step", lr_milestones="")
    inside = dataclasses.replace(ours, rmsprop_epsilon=1e-7, rmsprop_epsilon_inside=True)
    return {
        "predecessor": whole,
        "ours": own,
        **{f"ours with their {choice}": _exchange(own, whole, choice) for choice in CHOICES},
        **{f"predecessor with our {choice}": _exchange(whole, own, choice) for choice in CHOICES},
        "ours with a constant rate": Variant(constant, False),
        "ours with epsilon 1e-7 inside the root": Variant(inside, False),
        "predecessor with seed 1": Variant(dataclasses.replace(theirs, seed=1), True),
        "ours with seed 1": Variant(dataclasses.replace(ours, seed=1), False),
    }


def _exchange(base: Variant, source: Variant, choice: str) -> Variant:
    changes = {name: getattr(source.config, name) for name in CHOICES[choice]}
    forgets = source.forgets if choice == _RESUMING else base.forgets
    return Variant(dataclasses.replace(base.config, **changes), forgets)


def placed(named: dict[str, Variant], records: str, output: str, steps: int) -> dict:
    """The runs with a length and folders, and all with what the four scorings need.

    Raises ValueError for recipes without averaged weights or recomputed statistics.
    """
    examples = named["ours"].config.precise_bn_examples
    if not examples or not all(variant.config.ema_decay for variant in named.values()):
        raise ValueError(
            "the study scores averaged weights and recomputed statistics: set --ema_decay in both "
            "flagfiles and --precise_bn_examples in that of ours"
        )
    changes = {"records": records, "steps": steps, "precise_bn_examples": examples}
    result = {}
    for name, variant in named.items():
        workdir = os.path.join(output, name.replace(" ", "_"))
        config = dataclasses.replace(variant.config, workdir=workdir, **changes)
        result[name] = dataclasses.replace(variant, config=config)
    return result


def draw_records(folder: str, people: int, size: int) -> tfrecords.DatasetInfo:
    """The record set in ``folder``; without one, people are drawn for a network of ``size`` px."""
    if not tf.io.gfile.exists(os.path.join(folder, tfrecords.INFO_FILE)):
        drawn = folder.rstrip("/") + "_pictures"
        annotations = scene.generate(drawn, people, 0, os.cpu_count())
        images = os.path.join(drawn, "images")
        geometry = Geometry(context=1.3, side=size * 4 // 3)
        convert(READERS["synthetic"].read(annotations), images, folder, geometry=geometry)
    return tfrecords.read_info(folder)


class _OfBatch:
    """A network that normalises by the statistics of its batch, without keeping them."""

    def __init__(self, network: tf.keras.Model):
        """Wrap ``network``; its batch norms are ``hourglass.layers.BatchNorm``."""
        self.network, self.input_shape = network, network.input_shape

    def __call__(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, ...]:
        with layers.frozen(self.network):
            return self.network(images, training=True)


def make_score(state, info: tfrecords.DatasetInfo, config: Config, options):
    """A function that scores a state's weights on the validation people in the four ways.

    Args:
      state: a ``TrainState`` with averaged weights.
      info: the record set.
      config: evaluation batch, flip, decoder and number of people for recomputed statistics.
      options: of the training batches.

    Returns:
      function() -> {scoring: mean14 PCKh@0.5 in percent, ..., "staleness": see ``precise_bn``}.
    """
    strategy, people = state.strategy, info.count("validation")
    # Without padding, which would enter the statistics of the last batch.
    batch = next(n for n in range(config.evaluation_batch_size, 0, -1) if people % n == 0)
    dataset = input_pipeline.evaluation(info, "validation", batch=batch)
    labels = input_pipeline.labels(info, "validation")
    truth = ground_truth.of_records(info, "validation", labels)
    inference = evaluate.options_of(config, (options.mean, ""))
    networks = {"raw": state.network, "averaged": state.averaged, "batch": _OfBatch(state.network)}
    predicts = {
        name: forward.make_predict(strategy, network, info.skeleton.mirror, inference)
        for name, network in networks.items()
    }
    recomputed = {
        name: precise_bn.make(
            strategy,
            networks[name],
            info,
            options,
            examples=config.precise_bn_examples,
            batch_size=config.evaluation_batch_size,
        )
        for name in ("raw", "averaged")
    }

    def of(name: str) -> float:
        predicted, _ = evaluate.predict(strategy, predicts[name], dataset, labels)
        return scoring.mean14(predicted, truth)

    def score() -> dict[str, float]:
        result = {"moving averages": of("raw"), "the batch's own": of("batch")}
        with recomputed["raw"]() as staleness:
            result["recomputed"] = of("raw")
        with recomputed["averaged"]():
            result["recomputed, averaged weights"] = of("averaged")
        return {**result, "staleness": staleness}

    return score


def read_scores(folder: str) -> list[dict]:
    """What the run in ``folder`` has recorded so far, by step; [] for none."""
    path = os.path.join(folder, SCORES_FILE)
    return json.loads(read_whole(path)) if tf.io.gfile.exists(path) else []


def read_all(named: dict[str, Variant]) -> dict[str, list[dict]]:
    """The records of those runs that have any."""
    runs = {name: read_scores(variant.config.workdir) for name, variant in named.items()}
    return {name: records for name, records in runs.items() if records}


def _forget(optimizer) -> None:
    for slot in optimizer.weights[1:]:  # the first is its own count of steps
        slot.assign(tf.zeros_like(slot))


def _flat(network: tf.keras.Model) -> np.ndarray:
    return np.concatenate([v.numpy().ravel() for v in network.trainable_variables])


def _one_step(state, train_steps, iterator) -> tuple[dict, float]:
    """Sums of one step, and the norm of the weights' change relative to the weights."""
    before = _flat(state.network)
    sums = train_steps(iterator, tf.constant(1))
    change = np.linalg.norm(_flat(state.network) - before) / np.linalg.norm(before)
    return sums, float(change)


def run(variant: Variant, info: tfrecords.DatasetInfo, report=lambda steps: None) -> list[dict]:
    """Train a variant to its end in its workdir, going on where it stopped.

    Args:
      variant: its Config's ``steps`` are a multiple of ``EVALUATIONS``, at least twice that.
      info: the record set.
      report: called with the number of steps after they were taken.

    Returns:
      A record per evaluation: "step", the scorings, "staleness", and "loss", "training" (PCKh),
      "gradient_norm", "update", "rate"; means since the evaluation before, "update" of one step;
      "seconds" that the steps took.

    Raises:
      FileNotFoundError, ValueError: a workdir of another configuration.
      FloatingPointError: a loss that is not finite.
    """
    config, every = variant.config, variant.config.steps // EVALUATIONS
    run_dir.check_same_run(config, info)
    strategy = devices.training_strategy(config.strategy, config.logical_devices)
    lengths = schedule.Lengths.from_config(config, info.count("train"))
    state = train.create_state(config, strategy, info.skeleton, lengths)
    checkpoint = state.checkpoint()
    manager = run_dir.checkpoint_manager(checkpoint, config)
    latest = checkpoint_files.newest_whole(os.path.join(config.workdir, "checkpoints"))
    if latest:
        checkpoints.restore(checkpoint, latest)
    else:
        state.start_average()
    run_dir.write_run_files(config, info)
    step, options = int(state.step.numpy()), train.step_options(config, info.skeleton)
    train_steps = train_step.make_train_steps(state, options)
    iterator = train.batches(config, info, strategy, step)
    score = make_score(state, info, config, options.batch)
    # A record is written before its checkpoint.
    records = [record for record in read_scores(config.workdir) if record["step"] <= step]
    while step < config.steps:
        if variant.forgets and step in [every * k for k in FORGETS_AT]:
            _forget(state.optimizer)
        log, start = Log(config.global_batch_size), time.perf_counter()
        log.add(_numpy(train_steps(iterator, tf.constant(every - 1))), every - 1, 0.0)
        sums, update = _one_step(state, train_steps, iterator)
        seconds = time.perf_counter() - start
        log.add(_numpy(sums), 1, seconds)
        step += every
        numbers = log.scalars(float(state.learning_rate()), info.skeleton)
        train.check_finite(
            {"losses": numbers["losses"], "norm": numbers["gradient_norm"]},
            step - every,
            step,
            None,
        )
        loss, training = log.fit(info.skeleton)
        record = {"step": step, **score(), "loss": loss, "training": training, "update": update}
        record |= {"gradient_norm": float(numbers["gradient_norm"])}
        records.append({**record, "rate": numbers["learning_rate"], "seconds": seconds})
        text = json.dumps(records, indent=1)
        write_atomically(os.path.join(config.workdir, SCORES_FILE), text.encode())
        run_dir.save(manager, config, step)
        report(every)
    return records


def _numpy(sums: dict) -> dict:
    return {key: value.numpy() for key, value in sums.items()}


def measured_steps(variant: Variant, info, runs: int, minutes: float) -> int:
    """Steps of each of ``runs`` runs that fill ``minutes``, by a short run on this machine."""
    every = 10
    with tempfile.TemporaryDirectory(prefix="collapse-") as folder:
        short = dataclasses.replace(variant.config, workdir=folder, steps=every * EVALUATIONS)
        start = time.perf_counter()
        seconds = [record["seconds"] for record in run(Variant(short, False), info)]
        total = time.perf_counter() - start
    return fitting_steps(seconds, total, every, minutes * 60 / runs)


def fitting_steps(seconds: list[float], total: float, every: int, wanted: float) -> int:
    """Steps of a run of ``wanted`` seconds.

    Args:
      seconds: of a run's ``every`` steps between evaluations; the first compiles.
      total: seconds of that run.
      every: steps between its evaluations.
      wanted: seconds.
    """
    per_step = statistics.median(seconds[1:]) / every
    without_steps = total - len(seconds) * every * per_step
    return EVALUATIONS * max(2, round((wanted - without_steps) / per_step / EVALUATIONS))


def planned_steps(named: dict[str, Variant], info, output: str, minutes: float) -> int:
    """Steps of each run: those of ``output``/plan.json, else measured and written there.

    Raises ValueError for a plan of other minutes.
    """
    path = os.path.join(output, "plan.json")
    if tf.io.gfile.exists(path):
        plan = json.loads(read_whole(path))
        if plan["minutes"] != minutes:
            raise ValueError(
                f"{path} was made for --minutes={plan['minutes']:g}, not {minutes:g}; use that to "
                "go on, or another --output"
            )
        return plan["steps"]
    print("measuring this machine's speed", flush=True)
    first = next(iter(placed(named, info.folder, output, EVALUATIONS).values()))
    steps = measured_steps(first, info, len(named), minutes)
    text = json.dumps({"minutes": minutes, "steps": steps})
    write_atomically(path, text.encode())
    return steps


def study(named: dict[str, Variant], info: tfrecords.DatasetInfo, finished=lambda: None) -> None:
    """All runs one after the other, with a bar; ``finished()`` is called after each."""
    done = {name: len(read_scores(one.config.workdir)) for name, one in named.items()}
    steps = [one.config.steps for one in named.values()]
    before = sum(
        n * one.config.steps // EVALUATIONS for n, one in zip(done.values(), named.values())
    )
    with tqdm.tqdm(total=sum(steps), initial=before, unit="step", dynamic_ncols=True) as bar:
        for name, variant in named.items():
            if done[name] == EVALUATIONS:
                continue
            bar.set_description(name)
            records = run(variant, info, bar.update)
            end = ", ".join(f"{kind} {records[-1][kind]:.1f}" for kind in SCORINGS)
            bar.write(f"{name}: mean14 PCKh@0.5 at the end {end}")
            tf.keras.backend.clear_session()  # or each run's graphs stay in memory
            finished()
