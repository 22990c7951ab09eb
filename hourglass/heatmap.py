"""Gaussian heatmaps: render and decode, an inverse pair.

Heatmap px follow the convention of ``hourglass.affine``: pixel centres on integers.
"""

from __future__ import annotations

import math

import tensorflow as tf

from hourglass import addons, affine

DECODERS = ("argmax", "quarter", "hourglass", "hrnet", "dark", "subpixel")


def render(joints: tf.Tensor, size: int, sigma: float, rounded: bool = False) -> tf.Tensor:
    """Draw one Gaussian per joint, peak 1 at the joint's sub-pixel position.

    The two factors of a Gaussian are drawn along x and y and multiplied, all joints at once
    (Newell et al. 2016, section 3.2; the references truncate it at 3 sigma and round its centre).

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
    # Not einsum: its B x J products of a column and a row are several times slower on a CPU.
    return falloff[1][:, :, None, :] * falloff[0][:, None, :, :]


def _around(maps: tf.Tensor, pixels: tf.Tensor, reach: int) -> tf.Tensor:
    """Patches [B, J, n, n], n = 2 reach + 1, of maps [B, J, H, W], border pixels repeated."""
    _, joints, height, width = maps.shape
    steps = tf.constant([*range(-reach, reach + 1)], pixels.dtype)
    columns = tf.clip_by_value(pixels[..., :1] + steps, 0, width - 1)
    rows = tf.clip_by_value(pixels[..., 1:] + steps, 0, height - 1)
    index = rows[..., :, None] * width + columns[..., None, :]
    return tf.gather(tf.reshape(maps, [-1, joints, height * width]), index, batch_dims=2)


def _inside(maps: tf.Tensor, pixels: tf.Tensor, before: int, after: int) -> tf.Tensor:
    """[B, J, 2] bool: whether ``before`` pixels precede and ``after`` follow it on that axis."""
    last = tf.constant([maps.shape[3] - 1, maps.shape[2] - 1], pixels.dtype)
    return (pixels >= before) & (pixels <= last - after)


def _quarter(maps: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """[B, J, 2] of -0.25, 0 or 0.25 px: towards the larger neighbour."""
    near = _around(maps, pixels, 1)
    slope = tf.stack([near[..., 1, 2] - near[..., 1, 0], near[..., 2, 1] - near[..., 0, 1]], -1)
    return 0.25 * tf.sign(slope)


def _quarter_inside(maps: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    # At the border one neighbour is missing: no shift on this axis (the references then skip the
    # other axis too, for no reason that we know of).
    return tf.where(_inside(maps, pixels, 1, 1), _quarter(maps, pixels), 0.0)


def _newton(logs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Newton step from the middle of log heatmaps [B, J, n, n] to the top of their parabola.

    Second derivatives along an axis span the whole patch, all others the nearest pixels.
    Returns the step [B, J, 2] px and whether there is a top [B, J, 1].
    """
    reach = logs.shape[-1] // 2

    def at(x: int, y: int) -> tf.Tensor:
        return logs[..., reach + y, reach + x]

    x, y = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    xx = (at(reach, 0) - 2.0 * at(0, 0) + at(-reach, 0)) / reach**2
    yy = (at(0, reach) - 2.0 * at(0, 0) + at(0, -reach)) / reach**2
    xy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    determinant = xx * yy - xy * xy
    top = ((xx < 0) & (determinant > 0))[..., None]
    step = tf.stack([xy * y - yy * x, xy * x - xx * y], -1)
    return step / tf.where(top, determinant[..., None], 1.0), top


def _subpixel(maps: tf.Tensor, pixels: tf.Tensor, peak: tf.Tensor) -> tf.Tensor:
    # On the border the parabola is fitted around the next pixel inwards, so that it never needs a
    # missing neighbour; a joint beyond the border is extrapolated.
    limit = tf.constant([maps.shape[3] - 2, maps.shape[2] - 2], pixels.dtype)
    middle = tf.clip_by_value(pixels, 1, limit)
    # Relative to the peak, so that the floor of 1e-6 means the same for low peaks.
    near = _around(maps, middle, 1) / tf.maximum(peak, 1e-30)[..., None, None]
    step, top = _newton(tf.math.log(tf.maximum(near, 1e-6)))
    shift = tf.cast(middle - pixels, tf.float32) + step
    return tf.where(top, tf.clip_by_value(shift, -1.0, 1.0), _quarter_inside(maps, pixels))


def _modulate(heatmaps: tf.Tensor, sigma: float) -> tf.Tensor:
    """DARK's blur of [B, H, W, J], rescaled to the original peaks."""
    # The paper uses 11 px for sigma 2 and 17 px for sigma 3.
    size = 2 * math.ceil(2.5 * sigma) + 1
    blurred = addons.blur(heatmaps, size, float(sigma))
    blurred = tf.ensure_shape(blurred, heatmaps.shape)
    before, after = (tf.reduce_max(maps, [1, 2], keepdims=True) for maps in (heatmaps, blurred))
    return blurred * (tf.maximum(before, 0.0) / tf.maximum(after, 1e-10))


def _dark(heatmaps: tf.Tensor, pixels: tf.Tensor, sigma: float) -> tf.Tensor:
    maps = tf.transpose(_modulate(heatmaps, sigma), [0, 3, 1, 2])
    step, top = _newton(tf.math.log(tf.maximum(_around(maps, pixels, 2), 1e-10)))
    top &= tf.reduce_all(_inside(maps, pixels, 2, 2), -1, keepdims=True)
    return tf.where(top, tf.clip_by_value(step, -2.0, 2.0), 0.0)


def _reference(maps: tf.Tensor, pixels: tf.Tensor, peak: tf.Tensor, method: str) -> tf.Tensor:
    """Joints [B, J, 2] of "hourglass" or "hrnet", see ``decode``."""
    # Newell and pytorch-pose: 1 < x < W counted from 1. HRNet: 1 < x < W - 1 counted from 0.
    before = 1 if method == "hourglass" else 2
    both = tf.reduce_all(_inside(maps, pixels, before, 1), -1, keepdims=True)
    joints = tf.cast(pixels, tf.float32) + tf.where(both, _quarter(maps, pixels), 0.0)
    # They decode an empty map as coordinate 0, which is -1 for us where they count from 1.
    empty, ours = (-1.0, 0.0) if method == "hourglass" else (0.0, -0.5)
    return tf.where(peak[..., None] > 0, joints, empty) + ours


def decode(
    heatmaps: tf.Tensor, method: str = "quarter", sigma: float = 1.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode the position of each joint from its heatmap.

    - "argmax": the highest pixel; of equal ones the first.
    - "quarter": a quarter pixel from there towards the larger neighbour on each axis.
    - "subpixel": the top of the parabola through the logarithms of the 3x3 pixels around it: exact
      for every Gaussian, hence for ``render``, also at the border. At most 1 px from the highest
      pixel; where the parabola has no top, or no pixel is positive, it is "quarter".
    - "dark": Zhang et al. 2020 (arXiv 1910.06278) sections 3.2 and 3.3 and their released code:
      Gaussian blur, logarithm, Taylor step. No step within 2 px of the border; near it the blur's
      zero padding pulls inwards. Steps go only to a maximum, and at most to the border of the 5x5
      pixels that they were estimated from (theirs are unbounded).
    - "hourglass": Newell et al.'s released code (``postprocess``) and pytorch-pose's
      (``final_preds``). A quarter pixel if neither axis is at the border; an empty map is (-1, -1).
      Their pixels cover [x, x + 1], so that their + 0.5 is the pixel's centre: our x.
    - "hrnet": HRNet's ``get_final_preds``. A quarter pixel if both axes have 2 pixels before and 1
      after. Mapped to the photograph without the + 0.5: half a pixel less than "hourglass".

    With the last two, our mapping from heatmap to photograph gives the same joints as theirs (up
    to pytorch-pose's truncation to whole image px). They suit networks that were trained on the
    reference's own targets, see ``pipelines.evaluation.decoder_bounds``.

    Args:
      heatmaps: [B, H, W, J] float32, H, W and J static; "subpixel" needs 3x3 pixels or more.
      method: one of ``DECODERS``.
      sigma: heatmap px, of the Gaussians that the network was trained on; only "dark" needs it.

    Returns:
      joints [B, J, 2] float32 heatmap px, and confidences [B, J] float32 (the peak's height).

    Raises:
      ValueError: unknown method, or maps too small.
    """
    if method not in DECODERS:
        raise ValueError(f"decode method {method!r} is not one of {DECODERS}")
    _, height, width, joints = heatmaps.shape
    if method == "subpixel" and min(height, width) < 3:
        raise ValueError(f"subpixel needs heatmaps of 3x3 px or more, not {width}x{height}")
    maps = tf.transpose(heatmaps, [0, 3, 1, 2])
    flat = tf.reshape(maps, [-1, joints, height * width])
    # int64: TensorFlow keeps int32 of GPU graphs in host memory.
    index = tf.argmax(flat, axis=-1)
    pixels = tf.stack([index % width, index // width], -1)
    peak = tf.gather(flat, index[..., None], batch_dims=2)[..., 0]
    if method in ("hourglass", "hrnet"):
        return _reference(maps, pixels, peak, method), peak
    decoded = tf.cast(pixels, tf.float32)
    if method == "quarter":
        decoded += _quarter_inside(maps, pixels)
    elif method == "subpixel":
        decoded += _subpixel(maps, pixels, peak)
    elif method == "dark":
        decoded += _dark(heatmaps, pixels, sigma)
    return decoded, peak


def to_input(joints: tf.Tensor, stride: int) -> tf.Tensor:
    """Joints [..., 2] from heatmap px to network input px."""
    return affine.resample(joints, float(stride))


def unmirror(heatmaps: tf.Tensor, mirror: tuple[int, ...]) -> tf.Tensor:
    """Map heatmaps [B, H, W, J] of mirrored pictures to those of the original pictures.

    With pixel centres on integers a mirrored map is the reversed map, without any shift.
    """
    return tf.gather(tf.reverse(heatmaps, axis=[2]), mirror, axis=3)
