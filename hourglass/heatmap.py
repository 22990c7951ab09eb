"""Gaussian heatmaps: render and decode, an inverse pair.

Heatmap px follow the convention of ``hourglass.affine``: pixel centres on integers.
"""

from __future__ import annotations

import tensorflow as tf

from hourglass import affine

DECODERS = ("argmax", "quarter")


def render(joints: tf.Tensor, size: int, sigma: float, rounded: bool = False) -> tf.Tensor:
    """Draw one Gaussian per joint, peak 1 at the joint's sub-pixel position.

    The two factors of a Gaussian are drawn along x and y and multiplied, all joints at once
    (Newell et al. 2016, section 3.2; the references cut it off at 3 sigma and round its centre).

    Args:
      joints: [B, J, 2] float32, heatmap px; may lie outside.
      size: height and width of the heatmaps, px.
      sigma: standard deviation, heatmap px.
      rounded: centre on the nearest pixel, as the reference implementations do.

    Returns:
      [B, size, size, J] float32 in [0, 1].
    """
    centers = tf.floor(joints + 0.5) if rounded else joints
    grid = tf.range(size, dtype=tf.float32)
    falloff = tf.exp(-tf.square(grid - centers[..., None]) / (2.0 * sigma**2))
    falloff = tf.transpose(falloff, [2, 0, 3, 1])  # [axis, B, size, J]
    # Not einsum: as B x J products of a column and a row it is several times slower on a CPU.
    return falloff[1][:, :, None, :] * falloff[0][:, None, :, :]


def _value_at(flat: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    return tf.gather(flat, index[..., None], batch_dims=2)[..., 0]


def _towards_larger(flat: tf.Tensor, index: tf.Tensor, step: int, inside: tf.Tensor) -> tf.Tensor:
    # At the border one neighbour does not exist: no shift on this axis (the references then leave
    # out the other axis too, for no reason that we know of).
    after = _value_at(flat, tf.where(inside, index + step, index))
    before = _value_at(flat, tf.where(inside, index - step, index))
    return tf.sign(after - before)


def decode(heatmaps: tf.Tensor, method: str = "quarter") -> tuple[tf.Tensor, tf.Tensor]:
    """Find each joint in its heatmap.

    "argmax" is the highest pixel; "quarter" moves it a quarter pixel towards the larger
    neighbour on each axis (Newell et al.'s released code).

    Args:
      heatmaps: [B, H, W, J] float32.
      method: one of ``DECODERS``.

    Returns:
      joints [B, J, 2] float32 heatmap px, and confidences [B, J] float32 (the peak's height).

    Raises:
      ValueError: unknown method.
    """
    if method not in DECODERS:
        raise ValueError(f"decode method {method!r} is not one of {DECODERS}")
    _, height, width, joints = heatmaps.shape
    flat = tf.reshape(tf.transpose(heatmaps, [0, 3, 1, 2]), [-1, joints, height * width])
    index = tf.argmax(flat, axis=-1, output_type=tf.int32)
    x, y = index % width, index // width
    peak = tf.cast(tf.stack([x, y], -1), tf.float32)
    confidence = _value_at(flat, index)
    if method == "argmax":
        return peak, confidence
    shift_x = _towards_larger(flat, index, 1, (x > 0) & (x < width - 1))
    shift_y = _towards_larger(flat, index, width, (y > 0) & (y < height - 1))
    return peak + 0.25 * tf.stack([shift_x, shift_y], -1), confidence


def to_input(joints: tf.Tensor, stride: int) -> tf.Tensor:
    """Joints [..., 2] from heatmap px to network input px."""
    return affine.resample(joints, float(stride))


def unmirror(heatmaps: tf.Tensor, mirror: tuple[int, ...]) -> tf.Tensor:
    """Heatmaps [B, H, W, J] of mirrored pictures as those of the pictures themselves.

    With pixel centres on integers a mirrored map is the reversed map, with no pixel of shift.
    """
    return tf.gather(tf.reverse(heatmaps, axis=[2]), mirror, axis=3)
