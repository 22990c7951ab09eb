"""Training: ``make_train_steps`` is what the device does, ``run`` is the whole story."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time

import numpy as np
import tensorflow as tf
import tqdm

from hourglass import heatmap, loss, model, optimizer
from hourglass.model import STRIDE
from hourglass.skeleton import Skeleton
from pipelines import augment, board, checkpoint, devices, inputs, records, validation
from pipelines import config as configuration
from pipelines.config import Config
from pipelines.files import read_whole, write_atomically
from pipelines.progress import Log, Pace

FLAGS_FILE = "flags.txt"

# The average is moved every so many steps, by the decay's power: all variables every step cost a
# fifth of the throughput of a small network, and the two averages differ by less than rounding.
AVERAGE_EVERY = 10


def errors_in_step(batch: dict, matrix, points, heatmaps) -> tf.Tensor:
    """PCKh errors [b, J] float32 of training predictions (argmax), in head sizes.

    Distances are taken in input px; input px per image px is crop_to_input's scale over
    crop_to_image's.
    """
    found = heatmap.to_input(heatmap.decode(heatmaps, "argmax")[0], STRIDE)
    input_per_crop = tf.sqrt(tf.abs(tf.linalg.det(matrix[:, :, :2])))
    image_per_crop = tf.cast(batch["crop_to_image"][:, 0, 0], tf.float32)
    size = batch["head_size"] * input_per_crop / image_per_crop
    return tf.norm(found - points, axis=-1) / size[:, None]


def make_replica_step(
    network: tf.keras.Model,
    opt: tf.keras.optimizers.Optimizer,
    *,
    skeleton: Skeleton,
    global_batch: int,
    recipe: str,
    occluded: str,
    sigma: float,
    rounded: bool,
    clip_norm: float,
    seed: int,
    mean=augment.MEAN,
):
    """One step of one replica: augmentation, loss, gradients over all replicas, update.

    Returns:
      function(batch) -> dict over the global batch: losses [S], norm [] of the gradient, and hits
      [J] and counts [J] at PCKh@0.5 of the joints that weigh in the loss.
    """
    size, variables = network.input_shape[1], network.trainable_variables
    decays = hasattr(opt, "weight_decay")
    options = {"decay_var_list": optimizer.decayed(variables)} if decays else {}

    def replica_step(batch: dict) -> dict:
        draws = augment.draw(augment.RECIPES[recipe], seed, batch["index"], global_batch)
        images, matrix = augment.images(batch, size, draws, mean)
        points, state = augment.joints(batch, matrix, skeleton.mirror, draws)
        target, weight = augment.targets(
            points, state, size=size, sigma=sigma, occluded=occluded, rounded=rounded
        )
        with tf.GradientTape() as tape:
            predicted = network(images, training=True)
            losses = loss.per_stack(predicted, target, weight, global_batch)
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, variables)
        # Each replica's loss is already divided by the global batch: a sum, not a mean.
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradients, norm = optimizer.clip(gradients, clip_norm)
        opt.apply_gradients(
            zip(gradients, variables), experimental_aggregate_gradients=False, **options
        )
        errors = errors_in_step(batch, matrix, points, predicted[-1])
        known = (weight > 0) & tf.math.is_finite(errors)
        hits, counts = (tf.cast(part, tf.float32) for part in (known & (errors <= 0.5), known))
        sums = {
            "losses": losses,
            "hits": tf.reduce_sum(hits, 0),
            "counts": tf.reduce_sum(counts, 0),
        }
        return {**replica.all_reduce(tf.distribute.ReduceOp.SUM, sums), "norm": norm}

    return replica_step


def make_train_steps(
    strategy: tf.distribute.Strategy,
    network: tf.keras.Model,
    averaged: tf.keras.Model | None,
    opt: tf.keras.optimizers.Optimizer,
    step: tf.Variable,
    *,
    skeleton: Skeleton,
    average: float,
    timed: bool = True,
    **settings,
):
    """The training loop as one tf.function over a number of steps, traced once.

    Args:
      strategy: under which everything was created.
      network: trained.
      averaged: holds its average; None for none.
      opt: from ``hourglass.optimizer.build``.
      step: [] int64, steps taken.
      skeleton: the joints.
      average: decay of the average.
      timed: measure the wait for data; deterministic mode has no clock.
      **settings: further arguments of ``make_replica_step``.

    Returns:
      function(iterator, count []) -> dict of sums over the steps: losses [S], norm [], wait []
      (seconds without data; NaN unless ``timed``), hits [J] and counts [J] at PCKh@0.5.
    """
    replica_step = make_replica_step(network, opt, skeleton=skeleton, **settings)

    def average_now():
        decay = optimizer.average_decay(average, step) ** AVERAGE_EVERY
        optimizer.update_average(averaged.variables, network.variables, decay)

    def clock() -> tf.Tensor:
        return tf.timestamp() if timed else tf.constant(np.nan, tf.float64)

    def after(batch: dict, wait: tf.Tensor) -> dict:
        # The work must not start before the clock is read, or a busy CPU reads it late.
        with tf.control_dependencies([wait]):
            return replica_step(batch)

    def one_step(iterator, sums: dict) -> dict:
        # The clock starts when the step before has ended: what passes now, the device waits.
        with tf.control_dependencies([sums["losses"]]):
            start = clock()
        with tf.control_dependencies([start]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
            wait = clock() - start
        new = {**_first(strategy, strategy.run(after, (batch, wait))), "wait": wait}
        step.assign_add(1)
        if averaged is not None:
            tf.cond(step % AVERAGE_EVERY == 0, average_now, lambda: None)
        return {key: sums[key] + new[key] for key in sums}

    @tf.function
    def train_steps(iterator, count: tf.Tensor) -> dict:
        sums = {
            "losses": tf.zeros([len(network.outputs)]),
            "hits": tf.zeros([len(skeleton)]),
            "counts": tf.zeros([len(skeleton)]),
            "norm": tf.zeros([]),
            "wait": tf.zeros([], tf.float64),
        }
        for _ in tf.range(count):
            sums = one_step(iterator, sums)
        return sums

    return train_steps


def _first(strategy, value):
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], value)


@dataclasses.dataclass(frozen=True)
class Lengths:
    """A run's lengths in steps, converted once from epochs."""

    total: int
    epoch: int
    evaluate: int
    warmup: int
    drops: tuple[int, ...]

    @classmethod
    def of(cls, config: Config, people: int) -> Lengths:
        """Lengths for ``people`` training examples."""
        total = config.steps or max(1, round(config.epochs * people / config.batch))
        epoch = max(1, round(people / config.batch))
        return cls(
            total=total,
            epoch=epoch,
            evaluate=max(1, round(config.evaluate_every * epoch)),
            warmup=round(config.warmup * people / config.batch),
            drops=tuple(round(f * total) for f in configuration.fractions(config.drops)),
        )

    def until_stop(self, step: int, log_every: int) -> int:
        """Steps from ``step`` to the next log, epoch's end, validation or the end of training."""
        ends = [every - step % every for every in (self.epoch, self.evaluate, log_every)]
        return min([*ends, self.total - step])


def build_arguments(config: Config, skeleton: Skeleton) -> dict:
    """Arguments of ``hourglass.model.build`` that a Config means."""
    names = "stacks blocks channels depth size stem block norm sync_bn precision seed".split()
    return {"joints": len(skeleton), **{name: getattr(config, name) for name in names}}


def step_arguments(config: Config, skeleton: Skeleton) -> dict:
    """Keyword arguments of ``make_train_steps`` that a Config means."""
    names = "recipe occluded sigma clip_norm average seed".split()
    return {
        "skeleton": skeleton,
        "global_batch": config.batch,
        "rounded": config.round_centers,
        # TensorFlow refuses to read a clock in deterministic mode.
        "timed": not config.deterministic,
        **{name: getattr(config, name) for name in names},
    }


def refuse_other_run(config: Config, info: records.DatasetInfo) -> None:
    """Refuse a folder that holds another configuration's run.

    Raises:
      ValueError: naming each flag that differs, or the other record set.
    """
    path = os.path.join(config.workdir, FLAGS_FILE)
    if tf.io.gfile.exists(path):
        wrong = configuration.differences(read_whole(path).decode(), config)
        if wrong:
            raise ValueError(
                f"{config.workdir} holds a run of another configuration ({'; '.join(wrong)}); "
                "use its flags to resume it, or another --workdir"
            )
        checkpoint.check_data(config.workdir, info)


def input_mean(config: Config) -> tuple[float, ...]:
    """RGB mean [3] that this run's weights expect: its own, else that of --init_from's."""
    own = os.path.join(config.workdir, checkpoint.NETWORK_FILE)
    if tf.io.gfile.exists(own):
        return checkpoint.read_expected(config.workdir)[0]
    if config.init_from:
        return checkpoint.read_expected(checkpoint.split_place(config.init_from)[0])[0]
    return augment.MEAN


def claim(config: Config, info: records.DatasetInfo, mean=augment.MEAN) -> str:
    """Make the run's folder ours; returns the flagfile's text, now in ``workdir``/flags.txt."""
    text = configuration.to_flagfile(config)
    checkpoint.write_network(config.workdir, build_arguments(config, info.skeleton), info, mean)
    write_atomically(os.path.join(config.workdir, FLAGS_FILE), text.encode())
    return text


@contextlib.contextmanager
def stop_on_signals():
    """Yield a list that receives SIGTERM or SIGINT; a second signal acts as it always did."""
    received: list[int] = []

    def receive(number: int, frame) -> None:
        received.append(number)
        signal.signal(number, before[number])
        print(f"\n{signal.Signals(number).name}: saving after the running steps", flush=True)

    before = {n: signal.signal(n, receive) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_finite(sums: dict, first: int, last: int, prefix: str | None) -> None:
    """Stop the run on a loss or a gradient that is not finite.

    Raises:
      FloatingPointError: naming the steps and the last good checkpoint.
    """
    # A finite loss with another gradient leaves weights that must not be saved.
    if not (np.isfinite(sums["losses"]).all() and np.isfinite(sums["norm"])):
        raise FloatingPointError(
            f"the loss is not finite (sum per stack: {sums['losses']}, of the gradient's norm: "
            f"{sums['norm']}) in steps {first + 1} to {last}; the last good checkpoint is "
            f"{prefix or 'none yet'}. Lower --learning_rate, set --clip_norm or lengthen --warmup, "
            "in another --workdir"
        )


def _take_steps(train_steps, iterator, count: int, info: records.DatasetInfo) -> dict:
    """Sums of ``count`` steps as NumPy; a damaged shard is named instead of TensorFlow's error."""
    try:
        sums = train_steps(iterator, tf.constant(count))
        return {key: value.numpy() for key, value in sums.items()}
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        records.check_shards(info, "train")
        raise


def _restore(config: Config, state: tf.train.Checkpoint, network, averaged, skeleton) -> str | None:
    """Resume the run, or start from another one; returns the checkpoint resumed from."""
    latest = checkpoint.latest(os.path.join(config.workdir, "checkpoints"))
    if latest:
        checkpoint.restore(state, latest)
        return latest
    if config.init_from:
        prefix = checkpoint.find(config.init_from)
        folder, _ = checkpoint.split_place(config.init_from)
        same = checkpoint.read_network(folder)[1] == skeleton
        fresh = checkpoint.start_from(prefix, network, same)
        print(f"weights from {prefix}; fresh: {', '.join(fresh) or 'nothing'}")
    if averaged is not None:
        for average, variable in zip(averaged.variables, network.variables):
            average.assign(variable)
    return None


def run(config: Config) -> int:
    """Train until the configured length, resuming where ``workdir`` stopped.

    Returns:
      0 when training is complete, 128 + the signal's number when a signal stopped it.

    Raises:
      FileNotFoundError, ValueError: records, workdir or checkpoint that do not exist or do not fit.
      FloatingPointError: a loss that is not finite.
      RuntimeError: the device did not take the steps it was asked for.
    """
    info = records.read_info(config.records)
    records.check_shards(info, "train", contents=False)
    lengths = Lengths.of(config, info.count("train"))
    strategy = devices.make_strategy(config.strategy, config.logical_devices)
    if config.batch % strategy.num_replicas_in_sync:
        raise ValueError(
            f"--batch={config.batch} cannot be shared equally by "
            f"{strategy.num_replicas_in_sync} replicas; choose a multiple"
        )
    if config.deterministic:
        # No global seed: every draw has its own, and tf.data fails on a global seed of 0.
        tf.config.experimental.enable_op_determinism()
    refuse_other_run(config, info)

    with strategy.scope():
        step = tf.Variable(
            0, False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        arguments = build_arguments(config, info.skeleton)
        network = model.build(**arguments)
        averaged = model.build(**arguments) if config.average else None

        def rate():
            return optimizer.learning_rate(
                step,
                base=config.learning_rate,
                schedule=config.schedule,
                steps=lengths.total,
                warmup=lengths.warmup,
                drops=lengths.drops,
                drop_factor=config.drop_factor,
            )

        opt = optimizer.build(config.optimizer, rate, config.weight_decay)
        optimizer.create_slots(opt, network.trainable_variables)
    state = checkpoint.state(step, network, averaged, opt)
    saved = _restore(config, state, network, averaged, info.skeleton)
    manager = tf.train.CheckpointManager(
        state, os.path.join(config.workdir, "checkpoints"), config.keep
    )
    now = int(step.numpy())
    if saved:
        print(f"resuming {config.workdir} from step {now} ({saved})")

    mean = input_mean(config)
    train_steps = make_train_steps(
        strategy,
        network,
        averaged,
        opt,
        step,
        mean=mean,
        **step_arguments(config, info.skeleton),
    )
    dataset = inputs.training(
        info,
        batch=config.batch,
        seed=config.seed,
        start=now * config.batch,
        buffer=config.shuffle_buffer,
    )
    iterator = iter(strategy.experimental_distribute_dataset(dataset, inputs.AHEAD))
    validate = validation.make(config, strategy, info, network, averaged, mean)
    # Not before everything that can be wrong with the flags has been tried.
    flagfile = claim(config, info, mean)
    writer = tf.summary.create_file_writer(os.path.join(config.workdir, "logs"))
    board.write_flags(writer, flagfile)
    pace, log = Pace(config.steps_per_call), Log(config.batch)
    bar = tqdm.tqdm(total=lengths.total, initial=now, unit="step", dynamic_ncols=True)

    with stop_on_signals() as signals, bar:
        while now < lengths.total and not signals:
            count = pace.count(lengths.until_stop(now, config.log_every))
            start = time.perf_counter()
            sums = _take_steps(train_steps, iterator, count, info)
            seconds = time.perf_counter() - start
            pace.add(count, seconds, sums["wait"])
            check_finite(sums, now, now + count, saved)
            if int(step.numpy()) != now + count:
                raise RuntimeError(f"{step.numpy()} steps taken, {now + count} expected")
            now += count
            log.add(sums, count, seconds)
            bar.update(count)
            bar.set_postfix_str(log.line(pace.wait_percent))
            if now % config.log_every == 0 or now == lengths.total:
                board.write_training(writer, now, log.report(float(rate()), info.skeleton))
                log = Log(config.batch)
            validates = now % lengths.evaluate == 0 or now == lengths.total
            if now % lengths.epoch == 0 or validates:
                saved = manager.save(checkpoint_number=now)
            if validates:
                results = validate(writer, now)
                best = checkpoint.save_best(state, config.workdir, now, results)
                tqdm.tqdm.write(validation.line(now, results, best))
        if signals and now < lengths.total:
            saved = manager.save(checkpoint_number=now)
    writer.close()
    traces = train_steps.experimental_get_tracing_count()
    print(
        f"step {now} of {lengths.total}, saved as {saved}; data wait {pace.wait_percent:.2f} % "
        f"of the training time, {traces} trace"
    )
    if signals and now < lengths.total:
        print("the same command resumes this run")
        return 128 + signals[0]
    return 0
