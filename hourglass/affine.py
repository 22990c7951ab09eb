"""Affine maps between pixel grids, and THE pixel convention of this project.

Points are (x, y), 0-based, with pixel centres on integers: a picture W wide covers
[-0.5, W - 0.5]. A matrix named ``source_to_target`` is [..., 2, 3] and sends source points to
target points. No other module adds or subtracts half a pixel.

There are no matrix products here: GPUs compute them in TF32 by default, and its ten bits of
mantissa are half a pixel at 1,000 px. Sums of products keep float32.
"""

from __future__ import annotations

import tensorflow as tf


def identity() -> tf.Tensor:
    """[2, 3] float32: every point stays."""
    return tf.constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _square(matrix: tf.Tensor) -> tf.Tensor:
    last = tf.zeros_like(matrix[..., :1, :]) + tf.constant([0.0, 0.0, 1.0], matrix.dtype)
    return tf.concat([matrix, last], axis=-2)


def compose(source_to_middle: tf.Tensor, middle_to_target: tf.Tensor) -> tf.Tensor:
    """Chain two [..., 2, 3] maps in the order in which they are applied: source_to_target."""
    first, second = _square(source_to_middle), middle_to_target
    return tf.reduce_sum(second[..., :, :, None] * first[..., None, :, :], -2)


def invert(source_to_target: tf.Tensor) -> tf.Tensor:
    """[..., 2, 3] target_to_source of an invertible [..., 2, 3] map."""
    a, b = source_to_target[..., 0, 0], source_to_target[..., 0, 1]
    c, d = source_to_target[..., 1, 0], source_to_target[..., 1, 1]
    adjugate = tf.stack([tf.stack([d, -b], -1), tf.stack([-c, a], -1)], -2)
    linear = adjugate / (a * d - b * c)[..., None, None]
    return tf.concat([linear, -_turned(linear, source_to_target[..., 2])[..., None]], -1)


def _turned(linear: tf.Tensor, point: tf.Tensor) -> tf.Tensor:
    """[..., 2] of [..., 2, 2] and [..., 2]."""
    return linear[..., 0] * point[..., :1] + linear[..., 1] * point[..., 1:]


def apply(source_to_target: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Map points [..., J, 2] (source px) by [..., 2, 3] to [..., J, 2] (target px)."""
    matrix = source_to_target[..., None, :, :]
    return _turned(matrix[..., :2], points) + matrix[..., 2]


def resample(points: tf.Tensor, factor: float) -> tf.Tensor:
    """Points [..., 2] on a grid that is ``factor`` times as fine: (p + 0.5) * factor - 0.5.

    From the 256 px input to the 64 px heatmap the factor is 0.25; from heatmap to input it is 4.
    """
    return (points + 0.5) * factor - 0.5


def mirror(width: int) -> tf.Tensor:
    """[2, 3] float32 left-right mirror of a picture ``width`` px wide: x -> width - 1 - x."""
    return tf.constant([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def zoom(width: int, factor: float) -> tf.Tensor:
    """[2, 3] float32 enlargement of a picture ``width`` px wide about its middle."""
    shift = (1.0 - factor) * (width - 1) / 2
    return tf.constant([[factor, 0.0, shift], [0.0, factor, shift]])


def window_to_input(
    center: tf.Tensor, side: tf.Tensor, size: int, angle: tf.Tensor | float = 0.0
) -> tf.Tensor:
    """Map a square window of the source onto a network input of ``size`` x ``size`` px.

    Args:
      center: [..., 2] float32, source px; lands on the input's middle, (size - 1) / 2.
      side: [...] float32, the window's side in source px.
      size: side of the target, px.
      angle: [...] float32 radians; the picture turns by it, positive clockwise on the screen.

    Returns:
      [..., 2, 3] float32 source_to_input.
    """
    scale = size / side
    cos, sin = tf.cos(angle) * scale, tf.sin(angle) * scale
    linear = tf.stack([tf.stack([cos, -sin], -1), tf.stack([sin, cos], -1)], -2)
    shift = (size - 1) / 2 - _turned(linear, center)
    return tf.concat([linear, shift[..., None]], -1)


def warp(images: tf.Tensor, source_to_target: tf.Tensor, size: int) -> tf.Tensor:
    """Resample images bilinearly through an affine map; outside the source is black.

    TensorFlow's own kernel. On GPUs it exists for float32 only; for uint8 it truncates its result.

    Args:
      images: [B, H, W, C] uint8 or float32.
      source_to_target: [B, 2, 3] float32.
      size: side of the square result, px.

    Returns:
      [B, size, size, C] float32, not rounded.
    """
    rows = tf.reshape(invert(source_to_target), [-1, 6])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.pad(rows, [[0, 0], [0, 2]]),
        output_shape=tf.constant([size, size]),
        fill_value=tf.constant(0.0),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _neighbours(position: tf.Tensor, length: int) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """(index, weight) of the pixels before and after a position; weight 0 outside the image."""
    before, neighbours = tf.floor(position), []
    for pixel, weight in ((before, before + 1.0 - position), (before + 1.0, position - before)):
        inside = (pixel >= 0.0) & (pixel <= length - 1.0)
        index = tf.clip_by_value(tf.cast(pixel, tf.int32), 0, length - 1)
        neighbours.append((index, tf.where(inside, weight, 0.0)))
    return neighbours


def warp_gathered(images: tf.Tensor, source_to_target: tf.Tensor, size: int) -> tf.Tensor:
    """``warp`` as four gathers, which XLA compiles to one loop over the bytes that are read.

    On CPUs that takes a third of the kernel's time, because most of a stored crop is never read or
    cast. Not for GPUs, where TensorFlow cannot gather uint8 and keeps int32 on the host.
    """
    height, width, channels = images.shape[1:]
    pixels = tf.reshape(images, [-1, height * width, channels])
    rows, columns = tf.meshgrid(*[tf.range(size, dtype=tf.float32)] * 2, indexing="ij")
    target = tf.reshape(tf.stack([columns, rows], -1), [1, size * size, 2])
    source = apply(invert(source_to_target), target)
    warped = 0.0
    for row, row_weight in _neighbours(source[..., 1], height):
        for column, weight in _neighbours(source[..., 0], width):
            neighbour = tf.gather(pixels, row * width + column, batch_dims=1)
            warped += (row_weight * weight)[..., None] * tf.cast(neighbour, tf.float32)
    return tf.reshape(warped, [-1, size, size, channels])
