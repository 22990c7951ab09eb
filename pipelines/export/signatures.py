"""Graphs for use outside this project: heatmaps of crops, joints of whole photographs.

A photograph is cut as ``cropping.crop`` cuts it, inside the graph, so that an exported network sees
what the checkpoint's sees; the rest is evaluation's own code.
"""

from __future__ import annotations

import tensorflow as tf

from hourglass import affine
from pipelines.data import cropping, preprocessing
from pipelines.data.annotations import BOX_CONTEXT
from pipelines.inference import forward
from pipelines.inference.options import InferenceOptions


def to_person(box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Centre [..., 2] and crop side [...], image px, of boxes [..., 4]: x, y, width, height.

    COCO's convention: a box that covers exactly the pixel (0, 0) is 0, 0, 1, 1.
    """
    return box[..., :2] + box[..., 2:] / 2 - 0.5, BOX_CONTEXT * tf.reduce_max(box[..., 2:], -1)


def to_box(center: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """[..., 4] the square box whose ``to_person`` is centre [..., 2] and crop side [...]."""
    length = side[..., None] / BOX_CONTEXT
    return tf.concat([center + 0.5 - length / 2, length, length], -1)


def _check(box: tf.Tensor, width: tf.Tensor, shape: tf.Tensor) -> None:
    whole = tf.reduce_all(tf.math.is_finite(box)) & tf.reduce_all(box[2:] > 0)
    size = tf.cast(tf.stack([shape[1], shape[0]]), tf.float32)
    inside = tf.reduce_all((box[:2] < size) & (box[:2] + box[2:] > 0))
    rule = "a box is x, y, width, height in image px, both positive; given:"
    tf.debugging.Assert(whole, [rule, box])
    tf.debugging.Assert(inside, ["a box must overlap its picture; box and size:", box, size])
    limit = f"a box's crop may have at most {cropping.MAX_WINDOW} px with its context; it has:"
    tf.debugging.Assert(width <= cropping.MAX_WINDOW, [limit, width])


def _cut(photograph: tf.Tensor, first: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """[width, width, 3] of the square whose first pixel is (x, y); zeros beyond the photograph."""
    shape = tf.shape(photograph)[:2]
    start = tf.stack([first[1], first[0]])  # rows, columns
    low, high = tf.clip_by_value(start, 0, shape), tf.clip_by_value(start + width, 0, shape)
    part = photograph[low[0] : high[0], low[1] : high[1]]
    before = tf.clip_by_value(-start, 0, width)
    after = width - before - (high - low)
    return tf.pad(part, [[before[0], after[0]], [before[1], after[1]], [0, 0]])


def crop(photograph: tf.Tensor, box: tf.Tensor, geometry: cropping.Geometry) -> tuple:
    """``cropping.crop`` and ``tfrecords.decode`` as a graph, without the JPEG between them.

    Args:
      photograph: [H, W, 3] uint8 RGB.
      box: [4] float32 x, y, width, height, image px.
      geometry: of the records that the network was trained on.

    Returns:
      image [n, n, 3] uint8 with n = ``geometry.canvas`` + 1, center [2] float32 crop px, side []
      float32 crop px, crop_to_image [2, 3] float32. Running it raises InvalidArgumentError for a
      box without size, outside the picture, or too large.
    """
    center, side = to_person(box)
    width = tf.cast(tf.math.ceil(geometry.context * side), tf.int32) + 1
    _check(box, width, tf.shape(photograph))
    first = tf.cast(tf.round(center - tf.cast(width - 1, tf.float32) / 2), tf.int32)
    square = _cut(photograph, first, width)
    # A window of a stored crop may be a pixel wider than its canvas: that is not worth shrinking.
    largest = geometry.canvas + 1
    n = tf.where(width > largest, geometry.canvas, width)
    square = tf.cond(n < width, lambda: _shrink(square, n), lambda: square)
    rest = largest - n
    image = tf.ensure_shape(tf.pad(square, [[0, rest], [0, rest], [0, 0]]), [largest, largest, 3])
    zoom = tf.cast(width / n, tf.float32)
    shift = 0.5 * zoom - 0.5 + tf.cast(first, tf.float32)
    crop_to_image = tf.concat([zoom * tf.eye(2), shift[:, None]], 1)
    return image, (center - shift) / zoom, side / zoom, crop_to_image


def _shrink(square: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    averaged = tf.image.resize(square, [n, n], tf.image.ResizeMethod.AREA)
    return tf.cast(tf.round(averaged), tf.uint8)


def _decode(data: tf.Tensor) -> tf.Tensor:
    # decode_jpeg reads PNG too, and lets one choose the accurate transform, as the records do.
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def heatmaps(network: tf.keras.Model, preprocess: bool, mean: tuple[float, ...]):
    """Return a function of pictures "images" to {"heatmaps": [B, size / 4, size / 4, J] float32}.

    Args:
      network: from ``hourglass.model.build`` or folded.
      preprocess: pictures are uint8 RGB, and what the network expects is made of them inside;
        otherwise float32 in [0, 1] less ``mean``.
      mean: RGB [3].
    """
    size = network.input_shape[1]
    kind = tf.uint8 if preprocess else tf.float32

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], kind, "images")])
    def run(images):
        pictures = preprocessing.normalize(images, mean=mean) if preprocess else images
        return {"heatmaps": tf.identity(network(pictures, training=False)[-1], "heatmaps")}

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
      geometry: of the records that it was trained on.
      mirror: [J] permutation, ``Skeleton.mirror``.
      options: see ``InferenceOptions``.
      encoded: whether pictures are files.
    """
    shape, kind = ([None], tf.string) if encoded else ([None, None, None, 3], tf.uint8)
    n = geometry.canvas + 1
    floats = [tf.TensorSpec(shape, tf.float32) for shape in ([2], [], [2, 3])]
    crops = (tf.TensorSpec([n, n, 3], tf.uint8), *floats)

    def one(picture_and_box: tuple) -> tuple:
        picture, box = picture_and_box
        return crop(_decode(picture) if encoded else picture, box, geometry)

    pictures, boxes = tf.TensorSpec(shape, kind, "images"), tf.TensorSpec([None, 4], name="boxes")

    @tf.function(input_signature=[pictures, boxes])
    def run(images, boxes):
        with tf.device("/cpu:0"):  # as records are cut; GPUs can neither decode nor shrink
            *batch, crop_to_image = tf.map_fn(one, (images, boxes), fn_output_signature=crops)
        batch = dict(zip(("image", "center", "side"), batch))
        # A server may be built without XLA.
        points, confidences = forward.predict_joints(
            network, batch, mirror, options, compiled=False
        )
        return {"joints": affine.apply(crop_to_image, points), "confidences": confidences}

    return run
