"""Training from start to end; the computation on the device is in ``training.train_step``."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import time

import numpy as np
import tensorflow as tf
import tqdm

from hourglass import optimizer
from hourglass.skeleton import Skeleton
from pipelines import checkpoint_files, checkpoints, devices
from pipelines import config as configuration
from pipelines.config import Config
from pipelines.data import augmentation, input_pipeline, preprocessing, tfrecords
from pipelines.training import (
    event_files,
    multi_worker,
    run_dir,
    schedule,
    summaries,
    train_step,
    validator,
)
from pipelines.training.progress import DataWait, Log, Pace, wait_text
from pipelines.training.state import TrainState, create_train_state
from pipelines.training.train_step import StepOptions


@contextlib.contextmanager
def stop_on_signals():
    """Yield a list that collects SIGTERM or SIGINT; a second signal has its usual effect."""
    received: list[int] = []

    def receive(number: int, frame) -> None:
        received.append(number)
        signal.signal(number, before[number])
        print(f"\n{signal.Signals(number).name}: saving after the current steps", flush=True)

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
    # Even with a finite loss, such a gradient leaves weights that must not be saved.
    if not (np.isfinite(sums["losses"]).all() and np.isfinite(sums["norm"])):
        raise FloatingPointError(
            f"the loss is not finite (sum per stack: {sums['losses']}, of the gradient's norm: "
            f"{sums['norm']}) in steps {first + 1} to {last}; the last good checkpoint is "
            f"{prefix or 'none yet'}. Lower --learning_rate, set --clip_norm or raise "
            "--warmup_epochs, in another --workdir"
        )


@contextlib.contextmanager
def profiler(folder: str):
    """Yield function(enabled) that starts or stops a profiler trace into ``folder``/plugins."""
    running = False

    def profile(enabled: bool) -> None:
        nonlocal running
        if enabled and not running:
            tf.profiler.experimental.start(folder)
        if running and not enabled:
            tf.profiler.experimental.stop()
        running = enabled

    try:
        yield profile
    finally:
        profile(False)


def _take_steps(train_steps, iterator, count: int, info: tfrecords.DatasetInfo) -> dict:
    """Sums of ``count`` steps as NumPy; names a damaged shard instead of TensorFlow's error."""
    try:
        with tf.profiler.experimental.Trace("train", _r=1):
            sums = train_steps(iterator, tf.constant(count))
        return {key: value.numpy() for key, value in sums.items()}
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        tfrecords.check_shards(info, "train")
        raise


def create_state(config: Config, strategy, skeleton: Skeleton, lengths) -> TrainState:
    """Fresh variables of a run with these ``schedule.Lengths``."""
    learning_rate = functools.partial(
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
        learning_rate,
        optimizer_name=config.optimizer,
        weight_decay=config.weight_decay,
        averaged=bool(config.ema_decay),
        rmsprop={
            "rho": config.rmsprop_rho,
            "epsilon": config.rmsprop_epsilon,
            "epsilon_inside": config.rmsprop_epsilon_inside,
        },
    )


def step_options(config: Config, skeleton: Skeleton, mean=preprocessing.MEAN) -> StepOptions:
    """The training step's options; ``mean`` is the RGB mean [3] subtracted from pictures."""
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


def batches(config: Config, info: tfrecords.DatasetInfo, strategy, step: int):
    """Return an iterator over the training batches, from the one of ``step`` on."""
    return input_pipeline.distributed(
        strategy,
        info,
        batch=config.global_batch_size,
        seed=config.seed,
        start=step * config.global_batch_size,
        buffer=config.shuffle_buffer,
        cached=input_pipeline.fits(info, config.cache_gb),
    )


def _restore(config: Config, state: TrainState, checkpoint, skeleton: Skeleton) -> str | None:
    """Resume the run or start from --init_from; returns the path of the checkpoint resumed."""
    folder = os.path.join(config.workdir, "checkpoints")
    chief = devices.is_chief(state.strategy)
    latest = checkpoint_files.newest_whole(folder, set_aside=chief)
    if latest:
        checkpoints.restore(checkpoint, latest)
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


def _summary(traces: int, pace: Pace) -> str:
    if not traces:
        return "nothing was left to do: a longer run needs another --workdir and --init_from"
    plural = "" if traces == 1 else "s"
    percent = pace.wait_percent
    wait = wait_text(percent, 2) + ("" if math.isnan(percent) else " of the training time")
    return f"{wait}, {traces} trace{plural}"


@devices.naming_lost_workers()
def run(config: Config) -> int:
    """Train until the configured length, resuming where ``workdir`` stopped.

    Returns:
      0 when training is complete, 128 + the signal's number when a signal stopped it.

    Raises:
      FileNotFoundError, ValueError: records, workdir or checkpoint missing or incompatible.
      FloatingPointError: a loss that is not finite.
      ConnectionError: another worker was lost.
      RuntimeError: the device took another number of steps than requested.
    """
    info = tfrecords.read_info(config.records)
    tfrecords.check_shards(info, "train", contents=False)
    lengths = schedule.Lengths.from_config(config, info.count("train"))
    strategy = devices.training_strategy(config.strategy, config.logical_devices)
    if config.xla:
        devices.check_xla(tf.config.list_logical_devices("GPU"))
    multi_worker.agree_on_run(strategy, config, info)
    if config.global_batch_size % strategy.num_replicas_in_sync:
        raise ValueError(
            f"--global_batch_size={config.global_batch_size} cannot be divided equally among "
            f"{strategy.num_replicas_in_sync} replicas; choose a multiple"
        )
    if config.deterministic:
        # No global seed: every draw has its own, and tf.data fails on a global seed of 0.
        tf.config.experimental.enable_op_determinism()
    with run_dir.locked(config, strategy):
        try:
            return _train(config, info, lengths, strategy)
        except tf.errors.NotFoundError:
            tfrecords.check_unchanged(info)
            raise


def _train(config: Config, info: tfrecords.DatasetInfo, lengths, strategy) -> int:
    run_dir.check_same_run(config, info)
    state = create_state(config, strategy, info.skeleton, lengths)
    checkpoint = state.checkpoint()
    saved = _restore(config, state, checkpoint, info.skeleton)
    step = int(state.step.numpy())
    multi_worker.agree_on_step(strategy, step)
    if saved:
        print(f"resuming {config.workdir} from step {step} ({saved})")

    mean = run_dir.input_mean(config)
    options = step_options(config, info.skeleton, mean)
    train_steps = train_step.make_train_steps(state, options)
    cached = input_pipeline.fits(info, config.cache_gb)
    print(input_pipeline.describe_cache(info, config.cache_gb))
    iterator = batches(config, info, strategy, step)
    pace, log, stop_signal, interrupted = Pace(), Log(config.global_batch_size), 0, 0
    since_validation = Log(config.global_batch_size)
    data_wait = DataWait(info.geometry.canvas, info.size("train") / 1e9, cached)
    bar = tqdm.tqdm(
        total=lengths.total,
        initial=step,
        unit="step",
        dynamic_ncols=True,
        disable=not devices.is_chief(strategy),
    )

    with run_dir.worker_workdir(config, strategy) as own, contextlib.ExitStack() as stack:
        signals = stack.enter_context(stop_on_signals())
        profile = stack.enter_context(profiler(os.path.join(own.workdir, "logs")))
        stack.enter_context(bar)
        validate = validator.make(config, state, checkpoint, info, options.batch, signals)
        # Written only after everything that invalid flags could break has run.
        flagfile = run_dir.write_run_files(own, info, mean)
        manager = run_dir.checkpoint_manager(checkpoint, own)
        writer = event_files.EventFile(os.path.join(own.workdir, "logs"))
        summaries.write_flags(writer, flagfile)
        summaries.write_hyper_parameters(writer, config)
        if lengths.validates(step) and run_dir.missed_validation(own, strategy, step):
            interrupted = validate(writer, step, *since_validation.fit(info.skeleton))
        while step < lengths.total:
            profile(lengths.is_profiled(step))
            count = pace.count(lengths.until_stop(step, config.log_every))
            count, stop_signal = multi_worker.agree_on_steps(strategy, count, signals)
            if stop_signal:
                break
            start, cpu_start = time.perf_counter(), time.process_time()
            sums = _take_steps(train_steps, iterator, count, info)
            seconds = time.perf_counter() - start
            pace.add(count, seconds, sums["wait"])
            warning = data_wait.add(seconds, sums["wait"], time.process_time() - cpu_start)
            if warning:
                bar.write(warning)
            check_finite(sums, step, step + count, saved)
            if int(state.step.numpy()) != step + count:
                raise RuntimeError(f"{state.step.numpy()} steps taken, {step + count} expected")
            step += count
            if not lengths.is_profiled(step):
                profile(False)
            log.add(sums, count, seconds)
            since_validation.add(sums, count, seconds)
            bar.update(count)
            bar.set_postfix_str(log.line(pace.wait_percent))
            if step % config.log_every == 0 or step == lengths.total:
                scalars = log.scalars(float(state.learning_rate()), info.skeleton)
                try:
                    summaries.write_training(writer, step, scalars)
                except OSError:
                    # Not one of several workers: they save together, or not at all.
                    if not devices.is_multi_worker(strategy):
                        run_dir.save(manager, config, step)
                    raise
                log = Log(config.global_batch_size)
            if step % lengths.epoch == 0:
                tfrecords.check_unchanged(info)
            if step % lengths.epoch == 0 or lengths.validates(step):
                saved = run_dir.save(manager, config, step)
            if lengths.validates(step):
                interrupted = validate(writer, step, *since_validation.fit(info.skeleton))
                since_validation = Log(config.global_batch_size)
        if stop_signal:
            saved = run_dir.save(manager, config, step)
        # A worker that exits while the chief validates would count as lost.
        multi_worker.agree_on_step(strategy, step)
        if not stop_signal:
            ended = [interrupted] if interrupted else []
            _, stop_signal = multi_worker.agree_on_steps(strategy, 0, ended)
        writer.close()
    if state.loss_scale:
        skipped, scale = state.loss_scale.skipped.numpy(), state.loss_scale.scale.numpy()
        print(f"{skipped} steps skipped for overflow in float16; the loss scale is {scale:g}")
    traces = train_steps.experimental_get_tracing_count()
    print(f"step {step} of {lengths.total}, saved as {saved}; {_summary(traces, pace)}")
    if stop_signal:
        print("the same command resumes this run")
        return 128 + stop_signal
    return 0
