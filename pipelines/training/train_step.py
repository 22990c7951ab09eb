"""What the device does in training: one step of a replica, and many of them as one function."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from hourglass import heatmap, loss, optimizer, quiet
from hourglass.model import STRIDE
from hourglass.skeleton import Skeleton
from pipelines.config import Config
from pipelines.data import augmentation, preprocessing, targets

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


def make_gradients(
    network: tf.keras.Model, *, global_batch: int, accumulate: int = 1, xla: bool = False
):
    """Losses and gradients of a replica's share of the batch.

    Args:
      network: trained.
      global_batch: examples per update over all replicas.
      accumulate: equal parts of the share, one after the other, so that only one part's
        activations are in memory. Batch norm then normalises each part by itself, and its moving
        statistics move once per part; without it the result is that of the whole share.
      xla: compile forward and backward pass with XLA.

    Returns:
      function(images [b, size, size, 3], target [b, H, W, J], weight [b, J], scale []) ->
      losses [S], gradients of their sum times ``scale``, the last stack's heatmaps [b, H, W, J].
    """
    variables = network.trainable_variables

    def part(images, target, weight, scale):
        with tf.GradientTape() as tape:
            predicted = network(images, training=True)
            losses = loss.per_stack(predicted, target, weight, global_batch)
            total = scale * tf.reduce_sum(losses)
        return losses, tape.gradient(total, variables), predicted[-1]

    if xla:
        quiet.start_xla()
        part = tf.function(part, jit_compile=True)
    return part if accumulate == 1 else functools.partial(_add_parts, part, accumulate, network)


def _add_parts(part, count: int, network: tf.keras.Model, images, target, weight, scale):
    shares = [tf.reshape(x, [count, -1, *x.shape[1:]]) for x in (images, target, weight)]

    def add(i, losses, gradients, heatmaps):
        more, slopes, last = part(*(share[i] for share in shares), scale)
        gradients = [old + new for old, new in zip(gradients, slopes)]
        return i + 1, losses + more, gradients, heatmaps.write(i, last)

    losses = tf.zeros([len(network.outputs)])
    gradients = [tf.zeros(variable.shape) for variable in network.trainable_variables]
    start = (0, losses, gradients, tf.TensorArray(tf.float32, count))
    # One at a time: side by side the parts would need the memory of the whole.
    ended = tf.while_loop(lambda i, *_: i < count, add, start, parallel_iterations=1)
    return ended[1], ended[2], tf.reshape(ended[3].stack(), target.shape)


def _sum_over_replicas(replica, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    if replica.num_replicas_in_sync == 1:
        return gradients
    # As one tensor: hundreds of small sums cost a small network a few per cent of its step.
    shapes = [gradient.shape for gradient in gradients]
    flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)
    flat = replica.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    parts = tf.split(flat, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]


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
    mean=preprocessing.MEAN,
    accumulate: int = 1,
    xla: bool = False,
    loss_scale: optimizer.LossScale | None = None,
):
    """One step of one replica in two parts: gradients over all replicas, and the update.

    Returns:
      function(batch) -> dict over the global batch: losses [S], gradients, norm [] of them, and
      hits [J] and counts [J] at PCKh@0.5 of the joints that weigh in the loss; and
      function(gradients) that moves the weights.
    """
    size, variables = network.input_shape[1], network.trainable_variables
    decays = hasattr(opt, "weight_decay")
    options = {"decay_var_list": optimizer.decayed(variables)} if decays else {}
    gradients_of = make_gradients(
        network, global_batch=global_batch, accumulate=accumulate, xla=xla
    )

    def replica_step(batch: dict) -> dict:
        draws = augmentation.draw(
            augmentation.AUGMENTATIONS[recipe], seed, batch["index"], global_batch
        )
        images, matrix = preprocessing.images(batch, size, draws, mean)
        points, state = targets.joints(batch, matrix, skeleton.mirror, draws)
        target, weight = targets.targets(
            points, state, size=size, sigma=sigma, occluded=occluded, rounded=rounded
        )
        scale = 1.0 if loss_scale is None else tf.identity(loss_scale.scale)
        losses, gradients, heatmaps = gradients_of(images, target, weight, scale)
        # Each replica's loss is already divided by the global batch: a sum, not a mean.
        replica = tf.distribute.get_replica_context()
        gradients = _sum_over_replicas(replica, gradients)
        if loss_scale is not None:
            gradients = [gradient / scale for gradient in gradients]
        gradients, norm = optimizer.clip(gradients, clip_norm)
        errors = errors_in_step(batch, matrix, points, heatmaps)
        known = (weight > 0) & tf.math.is_finite(errors)
        hits, counts = (tf.cast(part, tf.float32) for part in (known & (errors <= 0.5), known))
        sums = {
            "losses": losses,
            "hits": tf.reduce_sum(hits, 0),
            "counts": tf.reduce_sum(counts, 0),
        }
        sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        return {**sums, "norm": norm, "gradients": gradients}

    def update(gradients: list) -> None:
        opt.apply_gradients(
            zip(gradients, variables), experimental_aggregate_gradients=False, **options
        )

    return replica_step, update


def _check_parts(strategy, network, *, global_batch: int, accumulate: int, xla: bool) -> None:
    replicas = strategy.num_replicas_in_sync
    if global_batch % (replicas * accumulate):
        raise ValueError(
            f"--global_batch_size={global_batch} cannot be shared equally by {replicas} replicas "
            f"with --accumulation_steps={accumulate} parts each; choose a multiple of "
            f"{replicas * accumulate}"
        )
    synchronized = any(getattr(layer, "synchronized", False) for layer in network.submodules)
    recomputed = any(layer.name.endswith("_again") for layer in network.layers)
    if replicas > 1 and synchronized and (xla or accumulate > 1 or recomputed):
        raise ValueError(
            "--sync_bn on several replicas does not go with --xla, --accumulation_steps or "
            "--remat: replicas cannot meet inside compiled, repeated or recomputed parts; "
            "use --norm=group or leave one out"
        )


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
    accumulate: int = 1,
    xla: bool = False,
    loss_scale: optimizer.LossScale | None = None,
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
      accumulate: parts of each replica's share, see ``make_gradients``.
      xla: compile the network, see ``make_gradients``.
      loss_scale: for float16; a step whose gradient overflows is left out, and adds 0 to norm.
      **settings: further arguments of ``make_replica_step``.

    Returns:
      function(iterator, count []) -> dict of sums over the steps: losses [S], norm [], wait []
      (seconds without data; NaN unless ``timed``), hits [J] and counts [J] at PCKh@0.5.

    Raises:
      ValueError: a batch that replicas and parts cannot share, or --sync_bn where replicas cannot
        meet.
    """
    parts = {"accumulate": accumulate, "xla": xla}
    _check_parts(strategy, network, global_batch=settings["global_batch"], **parts)
    replica_step, update = make_replica_step(
        network, opt, skeleton=skeleton, loss_scale=loss_scale, **parts, **settings
    )

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
        found = strategy.run(after, (batch, wait))
        gradients = found.pop("gradients")
        new = {**_first(strategy, found), "wait": wait}
        # Outside the replicas: there they could not meet in a branch.
        if loss_scale is None:
            strategy.run(update, (gradients,))
        else:
            new["norm"] = loss_scale.guard(new["norm"], lambda: strategy.run(update, (gradients,)))
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


def arguments(config: Config, skeleton: Skeleton) -> dict:
    """Keyword arguments of ``make_train_steps`` that a Config means."""
    names = "occluded sigma clip_norm seed xla".split()
    return {
        "skeleton": skeleton,
        "recipe": config.augmentation,
        "average": config.ema_decay,
        "accumulate": config.accumulation_steps,
        "global_batch": config.global_batch_size,
        "rounded": config.round_centers,
        # TensorFlow refuses to read a clock in deterministic mode.
        "timed": not config.deterministic,
        **{name: getattr(config, name) for name in names},
    }
