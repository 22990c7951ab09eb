"""From stored crops to network input, on the device: warp and normalise."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from hourglass import affine, quiet

# RGB mean of MPII's training crops, subtracted from [0, 1] pictures by both references.
MEAN = (0.4404, 0.4440, 0.4327)


def crop_to_input(batch: dict, size: int) -> tf.Tensor:
    """[B, 2, 3] float32 map from stored crops to the network input, without augmentation."""
    return affine.window_to_input(batch["center"], batch["side"], size)


def normalize(
    pixels: tf.Tensor, mean=MEAN, change: Callable | None = None, draws: dict | None = None
) -> tf.Tensor:
    """Pixels as the network takes them.

    Args:
      pixels: [B, H, W, 3] in [0, 255], uint8 or float32.
      mean: RGB [3], subtracted from pictures in [0, 1].
      change: function(pixels in [0, 1], draws) that augments them; see ``augmentation``.
      draws: for ``change``.

    Returns:
      [B, H, W, 3] float32.
    """
    image = tf.cast(pixels, tf.float32) * (1.0 / 255.0)
    if change is not None:
        image = change(image, draws)
    return image - tf.constant(mean, tf.float32)


@tf.function(jit_compile=True, autograph=False)
def _compiled(crops: tf.Tensor, matrix: tf.Tensor, size: int, mean, change, draws) -> tf.Tensor:
    return normalize(affine.warp_gathered(crops, matrix, size), mean, change, draws)


def warp_and_normalize(
    crops: tf.Tensor,
    matrix: tf.Tensor,
    size: int,
    *,
    mean=MEAN,
    change: Callable | None = None,
    draws: dict | None = None,
    compiled: bool = True,
) -> tf.Tensor:
    """Pictures [B, size, size, 3] float32 normalised, cut out of stored crops.

    Args:
      crops: [B, n, n, 3] uint8.
      matrix: [B, 2, 3] float32, crop to input.
      size: side of the input, px.
      mean: see ``normalize``, like ``change`` and ``draws``.
      change: augments pixels.
      draws: for ``change``.
      compiled: on CPUs as one loop that XLA compiles for each shape, at a third of the processor
        time; otherwise, and where there is a GPU, as a few kernels.
    """
    if compiled and not tf.config.list_logical_devices("GPU"):
        quiet.start_xla()
        return _compiled(crops, matrix, size, tuple(mean), change, draws)
    return normalize(affine.warp(crops, matrix, size), mean, change, draws)


def images(batch: dict, size: int, mean=MEAN, compiled: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
    """Network input of stored crops, without augmentation, and how it was cut out.

    Args:
      batch: with image, center and side of stored crops.
      size: side of the input, px.
      mean: RGB [3], subtracted from pictures in [0, 1].
      compiled: see ``warp_and_normalize``.

    Returns:
      Pictures [B, size, size, 3] float32 and crop_to_input [B, 2, 3] float32.
    """
    matrix = crop_to_input(batch, size)
    pictures = warp_and_normalize(batch["image"], matrix, size, mean=mean, compiled=compiled)
    return pictures, matrix
