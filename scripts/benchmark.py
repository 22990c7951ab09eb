"""Images per second of each part of training: python scripts/benchmark.py --flagfile=configs/....

Parts: input (records -> decoded uint8 batches), augment (crops -> network input and targets on the
device), train (the step on a fixed batch), end_to_end (the real loop on records). They are measured
in alternation, so that a busy machine slows all of them alike.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import statistics
import time

import rich.console
import rich.table
import tensorflow as tf
from absl import app, flags

from hourglass import model, optimizer
from pipelines import augment, command, config, device_step, devices, inputs, records, train

# Batches read per step of the other parts, so that what lay ready in buffers does not count.
INPUT_FACTOR = 20


def _input_part(settings, info):
    iterator = iter(inputs.training(info, batch=settings.batch, seed=0))
    return lambda steps: [next(iterator) for _ in range(INPUT_FACTOR * steps)]


def _augment_part(settings, info, batch):
    recipe, mirror = augment.RECIPES[settings.recipe], info.skeleton.mirror

    def once(step: tf.Tensor) -> tf.Tensor:
        index = batch["index"] + tf.cast(step, tf.int64) * settings.batch
        draws = augment.draw(recipe, 0, index, settings.batch)
        images, matrix = augment.images(batch, settings.size, draws)
        points, state = augment.joints(batch, matrix, mirror, draws)
        heatmaps, _ = augment.targets(points, state, size=settings.size, sigma=settings.sigma)
        return tf.reduce_sum(images) + tf.reduce_sum(heatmaps)

    @tf.function
    def loop(steps: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for step in tf.range(steps):
            total += once(step)
        return total

    return lambda steps: float(loop(tf.constant(steps)))


def _loop(settings, info, strategy, dataset):
    """The real training loop on a data set; returns function(steps) -> seconds without data."""
    with strategy.scope():
        step = tf.Variable(
            0, False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        arguments = train.build_arguments(settings, info.skeleton)
        network = model.build(**arguments)
        averaged = model.build(**arguments) if settings.average else None
        opt = optimizer.build(settings.optimizer, lambda: tf.constant(1e-4), settings.weight_decay)
        optimizer.create_slots(opt, network.trainable_variables)
    run = device_step.make_train_steps(
        strategy, network, averaged, opt, step, **device_step.arguments(settings, info.skeleton)
    )
    iterator = iter(strategy.experimental_distribute_dataset(dataset, inputs.AHEAD))

    def take(steps: int) -> float:
        return float(run(iterator, tf.constant(steps))["wait"])

    return take


def _measure(parts: dict, steps: int, repeats: int, batch: int) -> dict[str, list[float]]:
    for part in parts.values():
        part(2)
    speeds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats):
        for name, part in parts.items():
            start = time.perf_counter()
            part(steps)
            images = steps * batch * (INPUT_FACTOR if name == "input" else 1)
            speeds[name].append(images / (time.perf_counter() - start))
    return speeds


def _table(speeds: dict[str, list[float]], title: str) -> rich.table.Table:
    table = rich.table.Table("part", "images/s", "spread", "ms per image", title=title)
    for name, values in speeds.items():
        middle = statistics.median(values)
        spread = (max(values) - min(values)) / middle
        table.add_row(name, f"{middle:.1f}", f"{100 * spread:.0f} %", f"{1e3 / middle:.2f}")
    return table


def run(settings: config.Config, steps: int, repeats: int) -> None:
    """Measure every part on the records of the configuration and print the table."""
    info = records.read_info(settings.records)
    strategy = devices.make_strategy(settings.strategy, settings.logical_devices)
    dataset = inputs.training(info, batch=settings.batch, seed=0)
    batch = next(iter(dataset))
    fixed = tf.data.Dataset.from_tensors(batch).repeat()
    waits = []
    real = _loop(settings, info, strategy, dataset)
    parts = {
        "input": _input_part(settings, info),
        "augment": _augment_part(settings, info, batch),
        "train": _loop(settings, info, strategy, fixed),
        "end_to_end": lambda count: waits.append(real(count)),
    }
    speeds = _measure(parts, steps, repeats, settings.batch)
    title = (
        f"{settings.stacks} stacks, {settings.channels} channels, {settings.size} px, batch "
        f"{settings.batch}, {settings.precision}, {os.cpu_count()} cores, "
        f"{len(tf.config.list_physical_devices('GPU'))} GPUs, TensorFlow {tf.__version__}"
    )
    rich.console.Console().print(_table(speeds, title))
    seconds = sum(steps * settings.batch / speed for speed in speeds["end_to_end"])
    whole = statistics.median(speeds["end_to_end"]) / statistics.median(speeds["train"])
    print(f"end to end / training step alone: {whole:.3f}")
    print(f"data wait: {100 * sum(waits[1:]) / seconds:.2f} % of the end-to-end time")


def main(arguments: list[str]) -> int:
    """Benchmark what the training flags say."""
    command.no_leftovers(arguments)
    steps, repeats = flags.FLAGS.benchmark_steps, flags.FLAGS.repeats
    return command.answer(lambda: run(config.from_flags(), steps, repeats))


if __name__ == "__main__":
    config.define_flags()
    flags.DEFINE_integer("benchmark_steps", 10, "steps per measurement", lower_bound=1)
    flags.DEFINE_integer("repeats", 3, "measurements of each part", lower_bound=1)
    sys.exit(app.run(main))
