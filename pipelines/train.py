"""Training: ``run`` is the whole story; what the device does is in ``pipelines.device_step``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import tempfile
import time
import zlib

import numpy as np
import tensorflow as tf
import tqdm

from hourglass import model, optimizer
from pipelines import augment, board, checkpoint, device_step, devices, inputs, records, validation
from pipelines import config as configuration
from pipelines.config import Config
from pipelines.files import read_whole, write_atomically
from pipelines.progress import Log, Pace, Waiting

FLAGS_FILE = "flags.txt"


@dataclasses.dataclass(frozen=True)
class Lengths:
    """A run's lengths in steps, converted once from epochs."""

    total: int
    epoch: int
    evaluate: int
    warmup: int
    drops: tuple[int, ...]
    profile: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, config: Config, people: int) -> Lengths:
        """Lengths for ``people`` training examples; ValueError for a profile after the end."""
        total = config.steps or max(1, round(config.epochs * people / config.batch))
        epoch = max(1, round(people / config.batch))
        profile = configuration.span(config.profile)
        if profile[0] >= total:
            raise ValueError(
                f"--profile={config.profile} begins after the training's {total} steps; "
                "begin earlier"
            )
        return cls(
            total=total,
            epoch=epoch,
            evaluate=max(1, round(config.evaluate_every * epoch)),
            warmup=round(config.warmup * people / config.batch),
            drops=tuple(round(f * total) for f in configuration.fractions(config.drops)),
            profile=profile,
        )

    def until_stop(self, step: int, log_every: int) -> int:
        """Steps from ``step`` to the next log, epoch's end, validation or the end of training.

        One at a time while they are profiled: TensorBoard shows calls as steps.
        """
        ends = [every - step % every for every in (self.epoch, self.evaluate, log_every)]
        ends += [start - step for start in self.profile[:1] if start > step]
        return 1 if self.profiles(step) else min([*ends, self.total - step])

    def profiles(self, step: int) -> bool:
        """Whether the step after ``step`` steps is profiled."""
        return self.profile[0] <= step < self.profile[1]


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
    arguments = configuration.build_arguments(config, info.skeleton)
    checkpoint.write_network(config.workdir, arguments, info, mean)
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


@contextlib.contextmanager
def own_outputs(config: Config, strategy: tf.distribute.Strategy):
    """Yield the Config with the folder that this process writes to: the chief's is ``workdir``.

    Another worker must save whenever the chief does, for batch norm's averages are means over all
    of them: into a temporary folder, which is deleted.
    """
    if devices.is_chief(strategy):
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="worker-") as folder:
        yield dataclasses.replace(config, workdir=folder, keep=1)


def save(manager: tf.train.CheckpointManager, config: Config, step: int) -> str:
    """Save the state; returns the prefix that the chief saved it under."""
    name = os.path.basename(manager.save(checkpoint_number=step))
    return os.path.join(config.workdir, "checkpoints", name)


def agree_on_run(strategy, config: Config, info: records.DatasetInfo) -> None:
    """Check that all workers were started alike, but for where the files are.

    Raises:
      ValueError: naming the first worker whose flags or records differ from the chief's.
    """
    flags = configuration.to_flagfile(dataclasses.replace(config, workdir="", records=""))
    sums = [zlib.crc32(text.encode()) for text in (flags, info.to_json())]
    table = devices.gather(strategy, sums)
    for (worker, column), differs in np.ndenumerate(table != table[0]):
        if differs:
            raise ValueError(
                f"worker {worker} has other {('flags', 'records')[column]} than worker 0; start "
                "all workers by the same command, on copies of the same records"
            )


def agree_on_step(strategy, step: int) -> None:
    """Check that all workers are at one step, which waits for all of them.

    Raises:
      ValueError: naming each worker's step.
    """
    steps = devices.gather(strategy, [step])[:, 0].tolist()
    if len(set(steps)) > 1:
        raise ValueError(
            f"the workers start from steps {steps}: they must read the same checkpoints; give a "
            "--workdir that all machines share, such as gs:// or a network disk"
        )


def agree_on_steps(strategy, count: int, signals: list[int]) -> tuple[int, int]:
    """Steps of the next call and the signal that a worker received, or 0: alike on all workers."""
    table = devices.gather(strategy, [count, signals[0] if signals else 0])
    return int(table[:, 0].min()), int(table[:, 1].max())


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


@contextlib.contextmanager
def profiler(folder: str):
    """Yield function(wanted) that starts or stops a profiler trace into ``folder``/plugins."""
    running = False

    def profile(wanted: bool) -> None:
        nonlocal running
        if wanted and not running:
            tf.profiler.experimental.start(folder)
        if running and not wanted:
            tf.profiler.experimental.stop()
        running = wanted

    try:
        yield profile
    finally:
        profile(False)


def _take_steps(train_steps, iterator, count: int, info: records.DatasetInfo) -> dict:
    """Sums of ``count`` steps as NumPy; a damaged shard is named instead of TensorFlow's error."""
    try:
        with tf.profiler.experimental.Trace("train", _r=1):
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


@devices.naming_lost_workers()
def run(config: Config) -> int:
    """Train until the configured length, resuming where ``workdir`` stopped.

    Returns:
      0 when training is complete, 128 + the signal's number when a signal stopped it.

    Raises:
      FileNotFoundError, ValueError: records, workdir or checkpoint that do not exist or do not fit.
      FloatingPointError: a loss that is not finite.
      ConnectionError: another worker is gone.
      RuntimeError: the device did not take the steps it was asked for.
    """
    info = records.read_info(config.records)
    records.check_shards(info, "train", contents=False)
    lengths = Lengths.of(config, info.count("train"))
    strategy = devices.training_strategy(config.strategy, config.logical_devices)
    if config.xla:
        devices.check_xla(tf.config.list_logical_devices("GPU"))
    agree_on_run(strategy, config, info)
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
        arguments = configuration.build_arguments(config, info.skeleton)
        # Both alike: the average follows the weights in the order of their layers.
        network = model.build(**arguments, remat=config.remat)
        averaged = model.build(**arguments, remat=config.remat) if config.average else None
        loss_scale = optimizer.LossScale() if config.precision == "mixed_float16" else None

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
    if loss_scale:
        state.loss_scale = loss_scale
    saved = _restore(config, state, network, averaged, info.skeleton)
    now = int(step.numpy())
    agree_on_step(strategy, now)
    if saved:
        print(f"resuming {config.workdir} from step {now} ({saved})")

    mean = input_mean(config)
    train_steps = device_step.make_train_steps(
        strategy,
        network,
        averaged,
        opt,
        step,
        mean=mean,
        loss_scale=loss_scale,
        **device_step.arguments(config, info.skeleton),
    )
    cached = inputs.fits(info, config.cache_gb)
    iterator = inputs.distributed(
        strategy,
        info,
        batch=config.batch,
        seed=config.seed,
        start=now * config.batch,
        buffer=config.shuffle_buffer,
        cached=cached,
    )
    validate = validation.make(config, strategy, info, network, averaged, state, mean)
    pace, log, stop = Pace(config.steps_per_call), Log(config.batch), 0
    waiting = Waiting(info.geometry.canvas, info.size("train") / 1e9, cached)
    bar = tqdm.tqdm(
        total=lengths.total,
        initial=now,
        unit="step",
        dynamic_ncols=True,
        disable=not devices.is_chief(strategy),
    )

    with own_outputs(config, strategy) as mine, contextlib.ExitStack() as open_now:
        signals = open_now.enter_context(stop_on_signals())
        profile = open_now.enter_context(profiler(os.path.join(mine.workdir, "logs")))
        open_now.enter_context(bar)
        # Not before everything that can be wrong with the flags has been tried.
        flagfile = claim(mine, info, mean)
        manager = tf.train.CheckpointManager(
            state, os.path.join(mine.workdir, "checkpoints"), mine.keep
        )
        writer = tf.summary.create_file_writer(os.path.join(mine.workdir, "logs"))
        board.write_flags(writer, flagfile)
        board.write_hyper_parameters(writer, config)
        while now < lengths.total:
            profile(lengths.profiles(now))
            count = pace.count(lengths.until_stop(now, config.log_every))
            count, stop = agree_on_steps(strategy, count, signals)
            if stop:
                break
            start, used = time.perf_counter(), time.process_time()
            sums = _take_steps(train_steps, iterator, count, info)
            seconds = time.perf_counter() - start
            pace.add(count, seconds, sums["wait"])
            sentence = waiting.add(seconds, sums["wait"], time.process_time() - used)
            if sentence:
                bar.write(sentence)
            check_finite(sums, now, now + count, saved)
            if int(step.numpy()) != now + count:
                raise RuntimeError(f"{step.numpy()} steps taken, {now + count} expected")
            now += count
            if not lengths.profiles(now):
                profile(False)
            log.add(sums, count, seconds)
            bar.update(count)
            bar.set_postfix_str(log.line(pace.wait_percent))
            if now % config.log_every == 0 or now == lengths.total:
                board.write_training(writer, now, log.report(float(rate()), info.skeleton))
                log = Log(config.batch)
            validates = now % lengths.evaluate == 0 or now == lengths.total
            if now % lengths.epoch == 0 or validates:
                saved = save(manager, config, now)
            if validates:
                validate(writer, now)
        if stop:
            saved = save(manager, config, now)
        # A worker that left while the chief validates would count as lost.
        agree_on_step(strategy, now)
        writer.close()
    if loss_scale:
        skipped, scale = loss_scale.skipped.numpy(), loss_scale.scale.numpy()
        print(f"{skipped} steps left out for overflow in float16; the loss scale is {scale:g}")
    traces = train_steps.experimental_get_tracing_count()
    print(
        f"step {now} of {lengths.total}, saved as {saved}; data wait {pace.wait_percent:.2f} % "
        f"of the training time, {traces} trace"
    )
    if stop:
        print("the same command resumes this run")
        return 128 + stop
    return 0
