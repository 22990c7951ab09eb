"""Joints and target heatmaps of a batch, on the device."""

from __future__ import annotations

import tensorflow as tf

from hourglass import affine, heatmap
from hourglass.model import STRIDE
from pipelines.data.annotations import MISSING
from pipelines.data.annotations import OCCLUDED as OCCLUDED_STATE

OCCLUDED = ("train", "ignore", "zero")


def _swap_sides(values: tf.Tensor, mirrored: tf.Tensor, mirror: tuple[int, ...]) -> tf.Tensor:
    mirrored = tf.reshape(mirrored, [-1] + [1] * (len(values.shape) - 1))
    return tf.where(mirrored, tf.gather(values, mirror, axis=1), values)


def joints(
    batch: dict,
    crop_to_input: tf.Tensor,
    mirror: tuple[int, ...],
    mirrored: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Joints [B, J, 2] float32 input px and states [B, J] int32 of the network input.

    Args:
      batch: with joints [B, J, 2] crop px and state [B, J].
      crop_to_input: [B, 2, 3] float32.
      mirror: [J] permutation, ``Skeleton.mirror``.
      mirrored: [B] bool, whether the input is a mirror image; None for no example.
    """
    points, state = affine.apply(crop_to_input, batch["joints"]), batch["state"]
    if mirrored is not None:
        points = _swap_sides(points, mirrored, mirror)
        state = _swap_sides(state, mirrored, mirror)
    return points, state


def targets(
    points: tf.Tensor,
    state: tf.Tensor,
    *,
    size: int,
    sigma: float,
    occluded: str = "train",
    rounded: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Target heatmaps and weights. Missing joints and joints outside the input weigh 0.

    Occluded joints (23 % of MPII's) are joints: "train" gives them a Gaussian and weight 1, as
    Newell's code does; "ignore" gives weight 0; "zero" trains them to an empty map, as the
    original Keras port did.

    Args:
      points: [B, J, 2] float32 input px.
      state: [B, J] int32, see ``pipelines.data.annotations``.
      size: side of the network input, px.
      sigma: heatmap px.
      occluded: one of ``OCCLUDED``.
      rounded: Gaussians on whole pixels.

    Returns:
      heatmaps [B, size / 4, size / 4, J] float32, weight [B, J] float32.
    """
    centers = affine.resample(points, 1.0 / STRIDE)
    heatmaps = heatmap.render(centers, size // STRIDE, sigma, rounded)
    inside = tf.reduce_all((points >= -0.5) & (points < size - 0.5), axis=-1)
    weight = tf.cast((state != MISSING) & inside, tf.float32)
    hidden = tf.cast(state == OCCLUDED_STATE, tf.float32)
    if occluded == "ignore":
        weight *= 1.0 - hidden
    if occluded == "zero":
        heatmaps *= (1.0 - hidden)[:, None, None, :]
    return heatmaps, weight
