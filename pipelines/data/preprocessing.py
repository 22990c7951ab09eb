"""From stored crops to network input, on the device: warp, colour, normalise.

Evaluation is training's own path without a draw.
"""

from __future__ import annotations

import tensorflow as tf

from hourglass import affine, quiet

# RGB mean of MPII's training crops, subtracted from [0, 1] pictures by both references.
MEAN = (0.4404, 0.4440, 0.4327)


def crop_to_input(batch: dict, size: int, draws: dict | None = None) -> tf.Tensor:
    """[B, 2, 3] float32 map from stored crops to the network input, with or without a draw."""
    if draws is None:
        return affine.window_to_input(batch["center"], batch["side"], size)
    side = batch["side"] * draws["scale"]
    matrix = affine.window_to_input(batch["center"], side, size, draws["angle"])
    flip = draws["mirror"][:, None, None]
    return tf.where(flip, affine.compose(matrix, affine.mirror(size)), matrix)


def normalize(pixels: tf.Tensor, color: tf.Tensor | None = None, mean=MEAN) -> tf.Tensor:
    """[B, H, W, 3] in [0, 255], uint8 or float32, to float32 in [0, 1] less ``mean`` [3]."""
    image = tf.cast(pixels, tf.float32) * (1.0 / 255.0)
    if color is not None:
        image = tf.clip_by_value(image * color[:, None, None, :], 0.0, 1.0)
    return image - tf.constant(mean, tf.float32)


@tf.function(jit_compile=True)
def _compiled_images(crops: tf.Tensor, matrix: tf.Tensor, color, mean, size: int) -> tf.Tensor:
    return normalize(affine.warp_gathered(crops, matrix, size), color, mean)


def images(
    batch: dict, size: int, draws: dict | None = None, mean=MEAN, compiled: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Network input and how it was cut out.

    Args:
      batch: with image, center and side of stored crops.
      size: side of the input, px.
      draws: of ``draw``; None for none.
      mean: RGB [3], subtracted from pictures in [0, 1].
      compiled: on CPUs as one loop that XLA compiles for each shape, at a third of the processor
        time; otherwise, and where there is a GPU, as a few kernels.

    Returns:
      Pictures [B, size, size, 3] float32 and crop_to_input [B, 2, 3] float32.
    """
    matrix = crop_to_input(batch, size, draws)
    color = None if draws is None else draws["color"]
    if compiled and not tf.config.list_logical_devices("GPU"):
        quiet.start_xla()
        return _compiled_images(batch["image"], matrix, color, tuple(mean), size), matrix
    return normalize(affine.warp(batch["image"], matrix, size), color, mean), matrix
