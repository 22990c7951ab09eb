"""Training: ``run`` is the whole story; what the device does is in ``training.train_step``."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time

import numpy as np
import tensorflow as tf
import tqdm

from hourglass import optimizer
from hourglass.skeleton import Skeleton
from pipelines import checkpoints, devices
from pipelines import config as configuration
from pipelines.config import Config
from pipelines.data import augmentation, input_pipeline, preprocessing, tfrecords
from pipelines.training import multi_worker, run_dir, schedule, summaries, train_step, validator
from pipelines.training.progress import Log, Pace, Waiting
from pipelines.training.state import TrainState, create_train_state
from pipelines.training.train_step import StepOptions


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
            f"{prefix or 'none yet'}. Lower --learning_rate, set --clip_norm or raise "
            "--warmup_epochs, in another --workdir"
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


def _take_steps(train_steps, iterator, count: int, info: tfrecords.DatasetInfo) -> dict:
    """Sums of ``count`` steps as NumPy; a damaged shard is named instead of TensorFlow's error."""
    try:
        with tf.profiler.experimental.Trace("train", _r=1):
            sums = train_steps(iterator, tf.constant(count))
        return {key: value.numpy() for key, value in sums.items()}
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        tfrecords.check_shards(info, "train")
        raise


def create_state(config: Config, strategy, skeleton: Skeleton, lengths) -> TrainState:
    """Fresh variables of a run of these ``schedule.Lengths``."""
    rate = functools.partial(
        optimizer.learning_rate,
        base=config.learning_rate,
        schedule=config.lr_schedule,
        steps=lengths.total,
        warmup=lengths.warmup,
        milestones=lengths.milestones,
        drop_factor=config.lr_drop_factor,
    )
    return create_train_state(
        strategy,
        {**configuration.build_arguments(config, skeleton), "remat": config.remat},
        rate,
        optimizer_name=config.optimizer,
        weight_decay=config.weight_decay,
        averaged=bool(config.ema_decay),
    )


def step_options(config: Config, skeleton: Skeleton, mean=preprocessing.MEAN) -> StepOptions:
    """What a Config says about a training step; ``mean`` is the RGB mean [3] of its pictures."""
    batch = augmentation.BatchOptions(
        augmentation=config.augmentation,
        seed=config.seed,
        global_batch_size=config.global_batch_size,
        size=config.size,
        mirror=skeleton.mirror,
        sigma=config.sigma,
        occluded=config.occluded,
        round_centers=config.round_centers,
        mean=mean,
    )
    return StepOptions(
        batch=batch,
        ema_decay=config.ema_decay,
        clip_norm=config.clip_norm,
        accumulation_steps=config.accumulation_steps,
        xla=config.xla,
        # TensorFlow cannot read a clock in deterministic mode.
        timed=not config.deterministic,
    )


def _restore(config: Config, state: TrainState, whole, skeleton: Skeleton) -> str | None:
    """Resume the run, or start from another one; returns the checkpoint resumed from."""
    latest = checkpoints.latest(os.path.join(config.workdir, "checkpoints"))
    if latest:
        checkpoints.restore(whole, latest)
        return latest
    if config.init_from:
        prefix = checkpoints.find(config.init_from)
        folder, _ = checkpoints.split_path(config.init_from)
        same = checkpoints.read_network(folder)[1] == skeleton
        arguments = configuration.build_arguments(config, skeleton)
        fresh = set() if same else checkpoints.of_joints(arguments)
        checkpoints.start_from(prefix, state.network, fresh)
        print(f"weights from {prefix}; fresh: {', '.join(sorted(fresh)) or 'nothing'}")
    state.start_average()
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
    info = tfrecords.read_info(config.records)
    tfrecords.check_shards(info, "train", contents=False)
    lengths = schedule.Lengths.of(config, info.count("train"))
    strategy = devices.training_strategy(config.strategy, config.logical_devices)
    if config.xla:
        devices.check_xla(tf.config.list_logical_devices("GPU"))
    multi_worker.agree_on_run(strategy, config, info)
    if config.global_batch_size % strategy.num_replicas_in_sync:
        raise ValueError(
            f"--global_batch_size={config.global_batch_size} cannot be shared equally by "
            f"{strategy.num_replicas_in_sync} replicas; choose a multiple"
        )
    if config.deterministic:
        # No global seed: every draw has its own, and tf.data fails on a global seed of 0.
        tf.config.experimental.enable_op_determinism()
    run_dir.refuse_other_run(config, info)

    state = create_state(config, strategy, info.skeleton, lengths)
    whole, step = state.checkpoint(), state.step
    saved = _restore(config, state, whole, info.skeleton)
    now = int(step.numpy())
    multi_worker.agree_on_step(strategy, now)
    if saved:
        print(f"resuming {config.workdir} from step {now} ({saved})")

    mean = run_dir.input_mean(config)
    options = step_options(config, info.skeleton, mean)
    train_steps = train_step.make_train_steps(state, options)
    cached = input_pipeline.fits(info, config.cache_gb)
    print(input_pipeline.describe_cache(info, config.cache_gb))
    iterator = input_pipeline.distributed(
        strategy,
        info,
        batch=config.global_batch_size,
        seed=config.seed,
        start=now * config.global_batch_size,
        buffer=config.shuffle_buffer,
        cached=cached,
    )
    validate = validator.make(config, state, whole, info, options.batch)
    pace, log, stop = Pace(), Log(config.global_batch_size), 0
    waiting = Waiting(info.geometry.canvas, info.size("train") / 1e9, cached)
    bar = tqdm.tqdm(
        total=lengths.total,
        initial=now,
        unit="step",
        dynamic_ncols=True,
        disable=not devices.is_chief(strategy),
    )

    with run_dir.own_outputs(config, strategy) as mine, contextlib.ExitStack() as open_now:
        signals = open_now.enter_context(stop_on_signals())
        profile = open_now.enter_context(profiler(os.path.join(mine.workdir, "logs")))
        open_now.enter_context(bar)
        # Not before everything that can be wrong with the flags has been tried.
        flagfile = run_dir.claim(mine, info, mean)
        manager = tf.train.CheckpointManager(
            whole, os.path.join(mine.workdir, "checkpoints"), mine.max_checkpoints
        )
        writer = tf.summary.create_file_writer(os.path.join(mine.workdir, "logs"))
        summaries.write_flags(writer, flagfile)
        summaries.write_hyper_parameters(writer, config)
        while now < lengths.total:
            profile(lengths.profiles(now))
            count = pace.count(lengths.until_stop(now, config.log_every))
            count, stop = multi_worker.agree_on_steps(strategy, count, signals)
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
                report = log.report(float(state.learning_rate()), info.skeleton)
                summaries.write_training(writer, now, report)
                log = Log(config.global_batch_size)
            validates = now % lengths.evaluate == 0 or now == lengths.total
            if now % lengths.epoch == 0 or validates:
                saved = run_dir.save(manager, config, now)
            if validates:
                validate(writer, now)
        if stop:
            saved = run_dir.save(manager, config, now)
        # A worker that left while the chief validates would count as lost.
        multi_worker.agree_on_step(strategy, now)
        writer.close()
    if state.loss_scale:
        skipped, scale = state.loss_scale.skipped.numpy(), state.loss_scale.scale.numpy()
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
