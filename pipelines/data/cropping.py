"""Box -> square -> crop of a photograph, in NumPy and as a graph; points between the two grids.

Boxes are COCO's: x, y, width, height in image px from the first pixel's edge, half a pixel before
its centre. A box that covers exactly the pixel (0, 0) is 0, 0, 1, 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.data.annotations import BOX_CONTEXT, Person

# A window this wide takes 0.8 GB before it is shrunk; MPII's widest (of 25,204) has 12,408 px.
MAX_WINDOW = 16_384

# A stored crop this wide takes 50 MB where it is decoded, for each example of a batch.
MAX_CANVAS = 4096


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How much of the photograph a record keeps, and how finely.

    Attributes:
      context: the stored square covers ``context * person.side`` image px. To show no
        padding under any rotation it takes sqrt(2) x the largest scale: 1.77 for pytorch-pose's
        recipe, 2.0 for Newell's.
      side: most px that a person's crop side may take. 362 = 256 * sqrt(2): enlarging by the
        recipes' largest zoom, 2^0.5, still reads real pixels at 256 px network input.

    Raises ValueError for a context below 1 or a side below 8.
    """

    context: float = 2.0
    side: int = 362

    def __post_init__(self):
        """Check the two numbers once."""
        if not 1.0 <= self.context <= 8.0:
            raise ValueError(f"context is {self.context}; it must lie between 1 and 8 crop sides")
        if not 8 <= self.side <= 4096:
            raise ValueError(f"side is {self.side}; it must lie between 8 and 4096 px")
        if self.canvas > MAX_CANVAS:
            raise ValueError(
                f"context {self.context:g} x side {self.side} takes {self.canvas} px, more than "
                f"the {MAX_CANVAS} that a stored crop may have; lower one of them"
            )

    @property
    def canvas(self) -> int:
        """Side of every decoded crop, px (even)."""
        return 2 * math.ceil(self.context * self.side / 2)


# ---- in NumPy


def square(box: Sequence[float], context: float) -> tuple[np.ndarray, float]:
    """Centre [2] float64 and side of a box's square crop, image px with pixel centres on integers.

    Args:
      box: [4] x, y, width, height, image px.
      context: crop side over the box's longer side.
    """
    x, y, width, height = map(float, box)
    # By way of MPII's unit of 200 px, as the first records were cut: the rounding decides whether
    # ``window`` rounds up, for one box of whole px in 25.
    side = 200.0 * (context * max(width, height) / 200.0)
    return np.array([x + width / 2 - 0.5, y + height / 2 - 0.5]), side


def box_around(points: np.ndarray) -> np.ndarray:
    """[4] float64: x, y, width, height of the box that ends at the outermost of [N, 2] points."""
    return np.concatenate([points.min(axis=0) + 0.5, np.ptp(points, axis=0)])


def is_outside(box: Sequence[float], width: float, height: float) -> bool:
    """Whether a box has no part in a picture of ``width`` x ``height`` px."""
    x, y, w, h = box
    return bool(x >= width or y >= height or x + w <= 0 or y + h <= 0)


def window(person: Person, geometry: Geometry) -> tuple[int, int, int]:
    """Whole-pixel square (x0, y0, w), image px, that holds ``context`` crop sides of a person.

    Raises ValueError when the person's centre or crop side cannot give a window.
    """
    if not (np.isfinite(person.center).all() and 0 < person.side < np.inf):
        raise ValueError(
            f"person {person.id}: centre {person.center} and crop side {person.side} px must be "
            "finite, the side positive; correct the annotation"
        )
    # One pixel more, because rounding moves the window by up to half a pixel.
    width = math.ceil(geometry.context * person.side) + 1
    if width > MAX_WINDOW:
        raise ValueError(
            f"person {person.id}: the crop's window has {width} px, more than {MAX_WINDOW}; "
            "lower the context, or correct the annotated scale or box"
        )
    x0, y0 = np.rint(person.center - (width - 1) / 2).astype(int)
    return int(x0), int(y0), width


def crop(image: np.ndarray, person: Person, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Cut a person's square out of a photograph, shrunk to the canvas but never enlarged.

    Args:
      image: [H, W, 3] uint8 RGB, the photograph.
      person: with the square's centre and side.
      geometry: context and resolution.

    Returns:
      [n, n, 3] uint8 RGB with n <= ``geometry.canvas``, zeros beyond the photograph; and
      crop_to_image, [2, 3] float64: crop px -> image px.

    Raises ValueError for a person without a usable centre or crop side.
    """
    x0, y0, width = window(person, geometry)
    cut = _cut(image, x0, y0, width)
    n = min(width, geometry.canvas)
    if n < width:
        cut = _shrink(cut, n)
    zoom = width / n
    shift = 0.5 * zoom - 0.5
    crop_to_image = np.array([[zoom, 0.0, shift + x0], [0.0, zoom, shift + y0]])
    return cut, crop_to_image


def _cut(image: np.ndarray, x0: int, y0: int, width: int) -> np.ndarray:
    """[width, width, 3] copy of the square at (x0, y0); zeros beyond the photograph."""
    result = np.zeros((width, width, 3), np.uint8)
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + width, image.shape[1]), min(y0 + width, image.shape[0])
    if left < right and top < bottom:
        result[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    return result


def _shrink(image: np.ndarray, n: int) -> np.ndarray:
    import cv2  # here, because prediction files are scored without it

    return cv2.resize(image, (n, n), interpolation=cv2.INTER_AREA)


def to_crop(points: np.ndarray, crop_to_image: np.ndarray) -> np.ndarray:
    """Move [..., 2] float64 points from image px to crop px."""
    zoom, shift = crop_to_image[0, 0], crop_to_image[:, 2]
    return (np.asarray(points, np.float64) - shift) / zoom


def to_image(points: np.ndarray, crop_to_image: np.ndarray) -> np.ndarray:
    """Move [N, J, 2] points from crop px to image px, float64, through [N, 2, 3] matrices."""
    return np.einsum("nab,njb->nja", crop_to_image[:, :, :2], points) + crop_to_image[:, None, :, 2]


# ---- as a graph, for exported networks


def graph_square(box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """``square`` of people's boxes: centre [..., 2] and side [...] float32 of boxes [..., 4]."""
    return box[..., :2] + box[..., 2:] / 2 - 0.5, BOX_CONTEXT * tf.reduce_max(box[..., 2:], -1)


def graph_box(center: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """[..., 4] float32: the square box that ``graph_square`` turns into this centre and side."""
    length = side[..., None] / BOX_CONTEXT
    return tf.concat([center + 0.5 - length / 2, length, length], -1)


def graph_crop(photograph: tf.Tensor, box: tf.Tensor, geometry: Geometry) -> tuple:
    """``crop`` and ``tfrecords.decode`` without the JPEG between them.

    Args:
      photograph: [H, W, 3] uint8 RGB.
      box: [4] float32 x, y, width, height, image px.
      geometry: of the records that the network was trained on.

    Returns:
      image [n, n, 3] uint8 with n = ``geometry.canvas`` + 1, center [2] float32 crop px, side []
      float32 crop px, crop_to_image [2, 3] float32. Running it raises InvalidArgumentError for a
      box without size, outside the picture, or too large.
    """
    center, side = graph_square(box)
    width = tf.cast(tf.math.ceil(geometry.context * side), tf.int32) + 1
    _graph_check(box, width, tf.shape(photograph))
    first = tf.cast(tf.round(center - tf.cast(width - 1, tf.float32) / 2), tf.int32)
    cut = _graph_cut(photograph, first, width)
    # A window of a stored crop may be a pixel wider than its canvas: that is not worth shrinking.
    largest = geometry.canvas + 1
    n = tf.where(width > largest, geometry.canvas, width)
    cut = tf.cond(n < width, lambda: _graph_shrink(cut, n), lambda: cut)
    rest = largest - n
    image = tf.ensure_shape(tf.pad(cut, [[0, rest], [0, rest], [0, 0]]), [largest, largest, 3])
    zoom = tf.cast(width / n, tf.float32)
    shift = 0.5 * zoom - 0.5 + tf.cast(first, tf.float32)
    crop_to_image = tf.concat([zoom * tf.eye(2), shift[:, None]], 1)
    return image, (center - shift) / zoom, side / zoom, crop_to_image


def _graph_check(box: tf.Tensor, width: tf.Tensor, shape: tf.Tensor) -> None:
    whole = tf.reduce_all(tf.math.is_finite(box)) & tf.reduce_all(box[2:] > 0)
    size = tf.cast(tf.stack([shape[1], shape[0]]), tf.float32)
    inside = tf.reduce_all((box[:2] < size) & (box[:2] + box[2:] > 0))
    rule = "a box is x, y, width, height in image px, both positive; given:"
    tf.debugging.Assert(whole, [rule, box])
    tf.debugging.Assert(inside, ["a box must overlap its picture; box and size:", box, size])
    limit = f"a box's crop may have at most {MAX_WINDOW} px with its context; it has:"
    tf.debugging.Assert(width <= MAX_WINDOW, [limit, width])


def _graph_cut(photograph: tf.Tensor, first: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """[width, width, 3] of the square that begins at (x, y); zeros beyond the photograph."""
    shape = tf.shape(photograph)[:2]
    start = tf.stack([first[1], first[0]])  # rows, columns
    low, high = tf.clip_by_value(start, 0, shape), tf.clip_by_value(start + width, 0, shape)
    part = photograph[low[0] : high[0], low[1] : high[1]]
    before = tf.clip_by_value(-start, 0, width)
    after = width - before - (high - low)
    return tf.pad(part, [[before[0], after[0]], [before[1], after[1]], [0, 0]])


def _graph_shrink(image: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    averaged = tf.image.resize(image, [n, n], tf.image.ResizeMethod.AREA)
    return tf.cast(tf.round(averaged), tf.uint8)
