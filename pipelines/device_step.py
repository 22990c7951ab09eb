"""What the device does in training: one step of a replica, and many of them as one function."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hourglass import heatmap, loss, optimizer
from hourglass.model import STRIDE
from hourglass.skeleton import Skeleton
from pipelines import augment
from pipelines.config import Config

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


def arguments(config: Config, skeleton: Skeleton) -> dict:
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
