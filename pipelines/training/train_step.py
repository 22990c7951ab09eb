"""The computation on the device: a replica's training step, and many steps as one function."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from hourglass import heatmap, loss, optimizer, quiet
from hourglass.layers import Recomputed
from hourglass.model import STRIDE
from pipelines.data import augmentation
from pipelines.training.state import TrainState

# The average is updated every this many steps, with the decay to that power: updating all variables
# in every step cost a fifth of a small network's throughput, and the averages differ by less than
# rounding.
AVERAGE_EVERY = 10


def errors_in_step(batch: dict, crop_to_input, joints, heatmaps) -> tf.Tensor:
    """PCKh errors [b, J] float32 of training predictions (argmax), in head sizes.

    Distances are taken in input px; input px per image px is crop_to_input's scale over
    crop_to_image's.
    """
    predicted = heatmap.to_input(heatmap.decode(heatmaps, "argmax")[0], STRIDE)
    input_per_crop = tf.sqrt(tf.abs(tf.linalg.det(crop_to_input[:, :, :2])))
    image_per_crop = tf.cast(batch["crop_to_image"][:, 0, 0], tf.float32)
    size = batch["head_size"] * input_per_crop / image_per_crop
    return tf.norm(predicted - joints, axis=-1) / size[:, None]


def make_gradients(
    network: tf.keras.Model,
    *,
    global_batch_size: int,
    accumulation_steps: int = 1,
    xla: bool = False,
):
    """Losses and gradients of a replica's share of the batch.

    Args:
      network: the one that is trained.
      global_batch_size: examples per update over all replicas.
      accumulation_steps: equal parts of the share, computed one after the other, so that only one
        part's activations are in memory. Batch norm then normalises each part separately and
        updates its moving statistics once per part; without batch norm the result is that of the
        whole share.
      xla: compile forward and backward pass with XLA.

    Returns:
      function(images [b, size, size, 3], target [b, H, W, J], weight [b, J], scale []) ->
      losses [S], gradients of their sum times ``scale``, the last stack's heatmaps [b, H, W, J].
    """
    variables = network.trainable_variables

    def part(images, target, weight, scale):
        with tf.GradientTape() as tape:
            predicted = network(images, training=True)
            losses = loss.per_stack(predicted, target, weight, global_batch_size)
            total = scale * tf.reduce_sum(losses)
        return losses, tape.gradient(total, variables), predicted[-1]

    if xla:
        quiet.start_xla()
        part = tf.function(part, jit_compile=True, autograph=False)
    if accumulation_steps == 1:
        return part
    return functools.partial(_add_parts, part, accumulation_steps, network)


def _add_parts(part, count: int, network: tf.keras.Model, images, target, weight, scale):
    shares = [tf.reshape(x, [count, -1, *x.shape[1:]]) for x in (images, target, weight)]

    def add(i, losses, gradients, heatmaps):
        part_losses, part_gradients, last = part(*(share[i] for share in shares), scale)
        gradients = [total + new for total, new in zip(gradients, part_gradients)]
        return i + 1, losses + part_losses, gradients, heatmaps.write(i, last)

    losses = tf.zeros([len(network.outputs)])
    gradients = [tf.zeros(variable.shape) for variable in network.trainable_variables]
    start = (0, losses, gradients, tf.TensorArray(tf.float32, count))
    # One at a time: in parallel the parts would need the memory of the whole share.
    _, losses, gradients, heatmaps = tf.while_loop(
        lambda i, *_: i < count, add, start, parallel_iterations=1
    )
    return losses, gradients, tf.reshape(heatmaps.stack(), target.shape)


def _sum_over_replicas(replica, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    if replica.num_replicas_in_sync == 1:
        return gradients
    # As one tensor: hundreds of small reductions take a few per cent of a small network's step.
    shapes = [gradient.shape for gradient in gradients]
    flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)
    flat = replica.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    parts = tf.split(flat, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """Options of a training step.

    Attributes:
      batch: the batch's augmentation and targets.
      ema_decay: decay of the weights' exponential moving average.
      clip_norm: maximum global gradient norm; 0 for no clipping.
      accumulation_steps: parts of each replica's share, see ``make_gradients``.
      xla: compile the network, see ``make_gradients``.
      timed: measure the wait for data; deterministic mode has no clock.
    """

    batch: augmentation.BatchOptions
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    accumulation_steps: int = 1
    xla: bool = False
    timed: bool = True


def _make_replica_step(state: TrainState, options: StepOptions):
    """One replica's step, reduced over all replicas.

    Returns:
      function(batch) -> dict over the global batch: losses [S], gradients, their norm [], and
      hits [J] and counts [J] at PCKh@0.5 of the joints that the loss counts.
    """
    gradients_of = make_gradients(
        state.network,
        global_batch_size=options.batch.global_batch_size,
        accumulation_steps=options.accumulation_steps,
        xla=options.xla,
    )
    loss_scale = state.loss_scale

    def replica_step(batch: dict) -> dict:
        images, target, weight, joints, matrix = augmentation.augment_batch(batch, options.batch)
        scale = 1.0 if loss_scale is None else tf.identity(loss_scale.scale)
        losses, gradients, heatmaps = gradients_of(images, target, weight, scale)
        # Each replica's loss is already divided by the global batch: a sum, not a mean.
        replica = tf.distribute.get_replica_context()
        gradients = _sum_over_replicas(replica, gradients)
        if loss_scale is not None:
            gradients = [gradient / scale for gradient in gradients]
        gradients, norm = optimizer.clip(gradients, options.clip_norm)
        errors = errors_in_step(batch, matrix, joints, heatmaps)
        scored = (weight > 0) & tf.math.is_finite(errors)
        hits, counts = (tf.cast(mask, tf.float32) for mask in (scored & (errors <= 0.5), scored))
        sums = {
            "losses": losses,
            "hits": tf.reduce_sum(hits, 0),
            "counts": tf.reduce_sum(counts, 0),
        }
        sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        return {**sums, "norm": norm, "gradients": gradients}

    return replica_step


def _make_update(state: TrainState, options: StepOptions):
    """A function that updates the weights and their average from each replica's gradients."""
    strategy, step = state.strategy, state.step
    variables = state.network.trainable_variables
    decays = hasattr(state.optimizer, "weight_decay")
    decayed = {"decay_var_list": optimizer.decayed(variables)} if decays else {}

    def apply(gradients: list) -> None:
        state.optimizer.apply_gradients(
            zip(gradients, variables), experimental_aggregate_gradients=False, **decayed
        )

    def update_average() -> None:
        decay = optimizer.average_decay(options.ema_decay, step) ** AVERAGE_EVERY
        optimizer.update_average(state.averaged.variables, state.network.variables, decay)

    def update(gradients: list, norm: tf.Tensor) -> tf.Tensor:
        # Outside the replicas, which cannot synchronise inside a conditional.
        if state.loss_scale is None:
            strategy.run(apply, (gradients,))
        else:
            norm = state.loss_scale.guard(norm, lambda: strategy.run(apply, (gradients,)))
        step.assign_add(1)
        if state.averaged is not None:
            tf.cond(step % AVERAGE_EVERY == 0, update_average, lambda: None)
        return norm

    return update


def _check_parts(state: TrainState, options: StepOptions) -> None:
    replicas, parts = state.strategy.num_replicas_in_sync, options.accumulation_steps
    if options.batch.global_batch_size % (replicas * parts):
        raise ValueError(
            f"--global_batch_size={options.batch.global_batch_size} cannot be divided equally "
            f"among {replicas} replicas with --accumulation_steps={parts} parts each; choose a "
            f"multiple of {replicas * parts}"
        )
    layers = list(state.network.submodules)
    synchronized = any(getattr(layer, "synchronized", False) for layer in layers)
    recomputed = any(isinstance(layer, Recomputed) for layer in layers)
    if replicas > 1 and synchronized and (options.xla or parts > 1 or recomputed):
        raise ValueError(
            "--sync_bn on several replicas cannot be combined with --xla, --accumulation_steps or "
            "--remat: replicas cannot synchronise inside compiled, repeated or recomputed parts; "
            "use --norm=group or omit one of them"
        )


def make_train_steps(state: TrainState, options: StepOptions):
    """The training loop as one tf.function over a number of steps, traced once.

    Returns:
      function(iterator, count []) -> dict of sums over the steps: losses [S], norm [] (0 for a
      step whose gradient overflowed in float16, which is skipped), wait [] (seconds without data;
      NaN unless ``timed``), hits [J] and counts [J] at PCKh@0.5.

    Raises:
      ValueError: a batch that cannot be divided among replicas and parts, or --sync_bn where
        replicas cannot synchronise.
    """
    _check_parts(state, options)
    strategy = state.strategy
    replica_step, update = _make_replica_step(state, options), _make_update(state, options)

    def clock() -> tf.Tensor:
        return tf.timestamp() if options.timed else tf.constant(np.nan, tf.float64)

    def step_after_wait(batch: dict, wait: tf.Tensor) -> dict:
        # The computation must not start before the clock is read, or a busy CPU reads it late.
        with tf.control_dependencies([wait]):
            return replica_step(batch)

    def one_step(iterator, sums: dict) -> dict:
        # The clock starts at the previous step's end: until the batch is there, the device waits.
        with tf.control_dependencies([sums["losses"]]):
            start = clock()
        with tf.control_dependencies([start]):
            batch = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
            wait = clock() - start
        results = strategy.run(step_after_wait, (batch, wait))
        gradients = results.pop("gradients")
        new = {**_first(strategy, results), "wait": wait}
        new["norm"] = update(gradients, new["norm"])
        return {key: sums[key] + new[key] for key in sums}

    @tf.function(autograph=False)
    def train_steps(iterator, count: tf.Tensor) -> dict:
        outputs = state.network.outputs
        sums = {
            "losses": tf.zeros([len(outputs)]),
            "hits": tf.zeros([outputs[-1].shape[-1]]),
            "counts": tf.zeros([outputs[-1].shape[-1]]),
            "norm": tf.zeros([]),
            "wait": tf.zeros([], tf.float64),
        }
        return tf.while_loop(
            lambda step, _: step < count,
            lambda step, sums: (step + 1, one_step(iterator, sums)),
            (tf.constant(0), sums),
        )[1]

    return train_steps


def _first(strategy, value):
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], value)
