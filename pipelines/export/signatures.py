"""Graphs for use outside this project: heatmaps of crops, joints of whole photographs.

Photographs are cropped inside the graph, by ``cropping.graph_crop``, so that an exported network
gets the same input as the checkpoint's; the rest is evaluation's own code.
"""

from __future__ import annotations

import tensorflow as tf

from hourglass import affine
from pipelines.data import cropping, preprocessing
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions


def _decode(data: tf.Tensor) -> tf.Tensor:
    # decode_jpeg reads PNG too, and has the accurate transform, which the records use.
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def heatmaps(network: tf.keras.Model, preprocess: bool, mean: tuple[float, ...]):
    """Return a function of pictures "images" to {"heatmaps": [B, size / 4, size / 4, J] float32}.

    Args:
      network: from ``hourglass.model.build`` or folded.
      preprocess: pictures are uint8 RGB and normalised inside; otherwise float32 in [0, 1] less
        ``mean``.
      mean: RGB [3].
    """
    size = network.input_shape[1]
    kind = tf.uint8 if preprocess else tf.float32

    pictures = tf.TensorSpec([None, size, size, 3], kind, "images")

    @tf.function(input_signature=[pictures], autograph=False)
    def run(images):
        normalized = preprocessing.normalize(images, mean=mean) if preprocess else images
        return {"heatmaps": tf.identity(network(normalized, training=False)[-1], "heatmaps")}

    return run


def joints(
    network: tf.keras.Model,
    geometry: cropping.Geometry,
    mirror: tuple[int, ...],
    options: InferenceOptions,
    *,
    encoded: bool,
):
    """Return a function of "images" and "boxes" to {"joints": ..., "confidences": ...}.

    images: [N] string, JPEG or PNG, or with ``encoded`` False [N, H, W, 3] uint8 RGB; boxes [N, 4]
    float32 x, y, width, height, image px; joints [N, J, 2] float32 image px; confidences [N, J].

    Args:
      network: from ``hourglass.model.build`` or folded.
      geometry: crop geometry of the training records.
      mirror: [J] permutation, ``Skeleton.mirror``.
      options: see ``InferenceOptions``.
      encoded: whether pictures are encoded files.
    """
    shape, kind = ([None], tf.string) if encoded else ([None, None, None, 3], tf.uint8)
    n = geometry.canvas + 1
    floats = [tf.TensorSpec(shape, tf.float32) for shape in ([2], [], [2, 3])]
    crops = (tf.TensorSpec([n, n, 3], tf.uint8), *floats)

    def one(picture_and_box: tuple) -> tuple:
        picture, box = picture_and_box
        return cropping.graph_crop(_decode(picture) if encoded else picture, box, geometry)

    pictures, boxes = tf.TensorSpec(shape, kind, "images"), tf.TensorSpec([None, 4], name="boxes")

    @tf.function(input_signature=[pictures, boxes], autograph=False)
    def run(images, boxes):
        with tf.device("/cpu:0"):  # GPUs can neither decode nor downscale
            *batch, crop_to_image = tf.map_fn(one, (images, boxes), fn_output_signature=crops)
        batch = dict(zip(("image", "center", "side"), batch))
        # A server may be built without XLA.
        points, confidences = forward.predict_joints(
            network, batch, mirror, options, compiled=False
        )
        return {"joints": affine.apply(crop_to_image, points), "confidences": confidences}

    return run
