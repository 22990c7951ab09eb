"""From a batch of stored crops to heatmaps and joints, on the device."""

from __future__ import annotations

import tensorflow as tf

from hourglass import affine, heatmap
from hourglass.model import STRIDE
from pipelines.data import preprocessing


def heatmaps_of(
    network: tf.keras.Model, images: tf.Tensor, flip: bool, mirror: tuple[int, ...]
) -> tf.Tensor:
    """Heatmaps [B, h, w, J] float32 of the last stack, averaged with the mirrored picture's.

    Args:
      network: from ``hourglass.model.build``.
      images: [B, size, size, 3] float32 normalised.
      flip: mirror-averaged test (Newell et al. 2016, section 4).
      mirror: [J] permutation, ``Skeleton.mirror``.
    """
    if not flip:
        return network(images, training=False)[-1]
    both = network(tf.concat([images, tf.reverse(images, [2])], 0), training=False)[-1]
    straight, mirrored = tf.split(both, 2)
    return 0.5 * (straight + heatmap.unmirror(mirrored, mirror))


def multi_scale(
    network: tf.keras.Model,
    batch: dict,
    *,
    flip: bool,
    mirror,
    scales: tuple[float, ...] = (1.0,),
    mean=preprocessing.MEAN,
    compiled: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Heatmaps averaged over crops of several sizes about the same centre, in the frame of size 1.

    Where a smaller crop does not reach, the average is that of the others.

    Args:
      network: from ``hourglass.model.build``.
      batch: of ``input_pipeline.evaluation``.
      flip: mirror-averaged test at each scale.
      mirror: [J] permutation.
      scales: factors of the crop's side; (1.0,) costs nothing more than one forward pass.
      mean: RGB [3], subtracted from pictures in [0, 1].
      compiled: see ``preprocessing.images``.

    Returns:
      Heatmaps [B, h, w, J] float32 and crop_to_input [B, 2, 3] float32 of scale 1.
    """
    size, total, seen = network.input_shape[1], 0.0, 0.0
    for scale in scales:
        scaled = {**batch, "side": batch["side"] * scale}
        images, _ = preprocessing.images(scaled, size, mean=mean, compiled=compiled)
        maps = heatmaps_of(network, images, flip, mirror)
        if scales == (1.0,):
            return maps, preprocessing.crop_to_input(batch, size)
        width = maps.shape[1]
        to_one = tf.broadcast_to(affine.zoom(width, scale), [tf.shape(maps)[0], 2, 3])
        total += affine.warp(maps, to_one, width)
        seen += affine.warp(tf.ones([1, width, width, 1]), to_one[:1], width)
    return tf.math.divide_no_nan(total, seen), preprocessing.crop_to_input(batch, size)


def decode_rule(asked: str, expected: str = "") -> str:
    """The decoder meant: "auto" is what imported weights expect, and "quarter" for ours."""
    return (expected or "quarter") if asked == "auto" else asked


def joints_of(
    network: tf.keras.Model,
    batch: dict,
    *,
    decode: str,
    sigma: float = 1.0,
    heatmaps: bool = False,
    **scaled,
) -> tuple[tf.Tensor, ...]:
    """Joints [B, J, 2] float32 crop px and confidences [B, J] of stored crops.

    Args:
      network: from ``hourglass.model.build``.
      batch: image, center and side as ``input_pipeline.evaluation`` gives them.
      decode: one of ``heatmap.DECODERS``.
      sigma: heatmap px; only "dark" needs it.
      heatmaps: return them too, [B, h, w, J] float32.
      **scaled: further arguments of ``multi_scale``.
    """
    maps, crop_to_input = multi_scale(network, batch, **scaled)
    joints, confidence = heatmap.decode(maps, decode, sigma)
    input_joints = heatmap.to_input(joints, STRIDE)
    found = affine.apply(affine.invert(crop_to_input), input_joints), confidence
    return (*found, maps) if heatmaps else found


def make_predict(
    strategy,
    network: tf.keras.Model,
    *,
    flip: bool,
    decode: str,
    mirror,
    sigma: float = 1.0,
    scales=(1.0,),
    mean=preprocessing.MEAN,
) -> callable:
    """A function from a batch of ``input_pipeline.evaluation`` to crop px, traced once.

    Returns:
      function(batch) -> index [B] int64, joints [B, J, 2] float32 crop px, confidence [B, J]
      float32, each per replica.
    """

    def replica_predict(batch: dict):
        how = {"flip": flip, "decode": decode, "mirror": mirror, "sigma": sigma, "mean": mean}
        return (batch["index"], *joints_of(network, batch, scales=scales, **how))

    return tf.function(lambda batch: strategy.run(replica_predict, (batch,)))
