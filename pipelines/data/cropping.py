"""Cut a person's square out of a photograph, and move points between the two grids."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from pipelines.data.annotations import Person

# A window this wide takes 0.8 GB before it is shrunk; MPII's widest (of 25,204) has 12,408 px.
MAX_WINDOW = 16_384


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

    @property
    def canvas(self) -> int:
        """Side of every decoded crop, px (even)."""
        return 2 * math.ceil(self.context * self.side / 2)


def window(person: Person, geometry: Geometry) -> tuple[int, int, int]:
    """Whole-pixel square (x0, y0, w), image px, that holds ``context`` crop sides of a person.

    Raises ValueError when the person's centre or scale cannot give a window.
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
            "lower the context, or correct the annotated scale"
        )
    x0, y0 = np.rint(person.center - (width - 1) / 2).astype(int)
    return int(x0), int(y0), width


def crop(image: np.ndarray, person: Person, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Cut a person's square out of a photograph, shrunk to the canvas but never enlarged.

    Args:
      image: [H, W, 3] uint8 RGB, the photograph.
      person: whose centre and side place the square.
      geometry: context and resolution.

    Returns:
      [n, n, 3] uint8 RGB with n <= ``geometry.canvas``, zeros beyond the photograph; and
      crop_to_image, [2, 3] float64: crop px -> image px.

    Raises ValueError for a person without a usable centre or scale.
    """
    x0, y0, width = window(person, geometry)
    square = _cut(image, x0, y0, width)
    n = min(width, geometry.canvas)
    if n < width:
        square = cv2.resize(square, (n, n), interpolation=cv2.INTER_AREA)
    zoom = width / n
    shift = 0.5 * zoom - 0.5
    crop_to_image = np.array([[zoom, 0.0, shift + x0], [0.0, zoom, shift + y0]])
    return square, crop_to_image


def _cut(image: np.ndarray, x0: int, y0: int, width: int) -> np.ndarray:
    """[width, width, 3] copy of the square at (x0, y0); zeros beyond the photograph."""
    square = np.zeros((width, width, 3), np.uint8)
    left, top = max(x0, 0), max(y0, 0)
    right, bottom = min(x0 + width, image.shape[1]), min(y0 + width, image.shape[0])
    if left < right and top < bottom:
        square[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    return square


def to_crop(points: np.ndarray, crop_to_image: np.ndarray) -> np.ndarray:
    """Move [..., 2] float64 points from image px to crop px."""
    zoom, shift = crop_to_image[0, 0], crop_to_image[:, 2]
    return (np.asarray(points, np.float64) - shift) / zoom


def to_image(points: np.ndarray, crop_to_image: np.ndarray) -> np.ndarray:
    """Move [N, J, 2] points from crop px to image px, float64, through [N, 2, 3] matrices."""
    return np.einsum("nab,njb->nja", crop_to_image[:, :, :2], points) + crop_to_image[:, None, :, 2]
