"""Heatmaps and joints of a batch of stored crops, on the device."""

from __future__ import annotations

import tensorflow as tf

from hourglass import affine, heatmap
from hourglass.model import STRIDE
from pipelines.data import preprocessing
from pipelines.inference.options import InferenceOptions


def predict_heatmaps(
    network: tf.keras.Model, images: tf.Tensor, mirror: tuple[int, ...], flip: bool
) -> tf.Tensor:
    """Heatmaps [B, h, w, J] float32 of the last stack, averaged with the mirrored picture's.

    Args:
      network: from ``hourglass.model.build``.
      images: [B, size, size, 3] float32 normalised.
      mirror: [J] permutation, ``Skeleton.mirror``.
      flip: whether to predict the mirrored picture too.
    """
    if not flip:
        return network(images, training=False)[-1]
    both = network(tf.concat([images, tf.reverse(images, [2])], 0), training=False)[-1]
    straight, mirrored = tf.split(both, 2)
    return 0.5 * (straight + heatmap.unmirror(mirrored, mirror))


def predict_scales(
    network: tf.keras.Model,
    batch: dict,
    mirror: tuple[int, ...],
    options: InferenceOptions,
    compiled: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Heatmaps averaged over crops of several scales around one centre, on the grid of scale 1.

    Pixels outside a smaller crop are averaged over the other scales.

    Args:
      network: from ``hourglass.model.build``.
      batch: of ``input_pipeline.evaluation``.
      mirror: [J] permutation, ``Skeleton.mirror``.
      options: flip, scales and mean are used.
      compiled: see ``preprocessing.images``.

    Returns:
      Heatmaps [B, h, w, J] float32 and crop_to_input [B, 2, 3] float32 of scale 1.
    """
    size, total, coverage = network.input_shape[1], 0.0, 0.0
    for scale in options.scales:
        scaled = {**batch, "side": batch["side"] * scale}
        images, _ = preprocessing.images(scaled, size, mean=options.mean, compiled=compiled)
        maps = predict_heatmaps(network, images, mirror, options.flip)
        if options.scales == (1.0,):
            return maps, preprocessing.crop_to_input(batch, size)
        width = maps.shape[1]
        to_one = tf.broadcast_to(affine.zoom(width, scale), [tf.shape(maps)[0], 2, 3])
        total += affine.warp(maps, to_one, width)
        coverage += affine.warp(tf.ones([1, width, width, 1]), to_one[:1], width)
    return tf.math.divide_no_nan(total, coverage), preprocessing.crop_to_input(batch, size)


def predict_joints(
    network: tf.keras.Model,
    batch: dict,
    mirror: tuple[int, ...],
    options: InferenceOptions,
    *,
    heatmaps: bool = False,
    compiled: bool = True,
) -> tuple[tf.Tensor, ...]:
    """Joints [B, J, 2] float32 crop px and confidences [B, J] float32 of stored crops.

    Args:
      network: from ``hourglass.model.build``.
      batch: image, center and side of ``input_pipeline.evaluation``.
      mirror: [J] permutation, ``Skeleton.mirror``.
      options: see there.
      heatmaps: return them too, [B, h, w, J] float32.
      compiled: see ``preprocessing.images``.
    """
    maps, crop_to_input = predict_scales(network, batch, mirror, options, compiled)
    heatmap_joints, confidence = heatmap.decode(maps, options.decoder, options.sigma)
    input_joints = heatmap.to_input(heatmap_joints, STRIDE)
    joints = affine.apply(affine.invert(crop_to_input), input_joints)
    return (joints, confidence, maps) if heatmaps else (joints, confidence)


def make_predict(
    strategy: tf.distribute.Strategy,
    network: tf.keras.Model,
    mirror: tuple[int, ...],
    options: InferenceOptions,
) -> callable:
    """A function that predicts a batch of ``input_pipeline.evaluation``, traced once.

    Returns:
      function(batch) -> index [B] int64, joints [B, J, 2] float32 crop px, confidence [B, J]
      float32, each per replica.
    """

    def replica_predict(batch: dict):
        return batch["index"], *predict_joints(network, batch, mirror, options)

    @tf.function(autograph=False)
    def predict(batch: dict):
        return strategy.run(replica_predict, (batch,))

    return predict
