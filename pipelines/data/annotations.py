"""Person: the one host-side record of an annotated person, in 0-based image pixels."""

from __future__ import annotations

import dataclasses

import numpy as np

from hourglass.skeleton import Skeleton

# The three states of a joint. References that merge them lose points: see BUILD_NOTES.md.
MISSING, OCCLUDED, LABELLED = 0, 1, 2

SPLITS = ("train", "validation", "test")

# No picture that can be read is as wide; 1e308 would be infinite in the records' float32.
MAX_PX = 1e6
# Smaller sides and head sizes are slips, and would round to 0 in float32.
MIN_SIDE, MIN_HEAD_SIZE = 1.0, 1e-3

# Crop side over the longer side of a person's box: MPII's rule (1.25 x a person's height) and
# COCO's. A box of joints ends at ankles, wrists and head top; hands, feet and hair lie beyond it.
# So 1.35 times that box is about the same crop.
BOX_CONTEXT = 1.25
JOINTS_CONTEXT = 1.35


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """One person in one photograph. All positions are 0-based image px, pixel centres on integers.

    Attributes:
      id: stable key, unique in its data set, e.g. "015601864.jpg#1".
      image: photograph, relative to the images folder.
      split: "train", "validation" or "test".
      row: index in the split's published order; predictions are written in this order.
      center: [2] float64 image px, the crop's centre (after the data set's own adjustments).
      side: of the square crop, image px (after the data set's own adjustments).
      joints: [J, 2] float64 image px; zeros where the state is MISSING.
      state: [J] uint8 of MISSING, OCCLUDED, LABELLED.
      head_size: PCKh normaliser in image px; NaN where the person cannot be scored by PCKh.
    """

    id: str
    image: str
    split: str
    row: int
    center: np.ndarray
    side: float
    joints: np.ndarray
    state: np.ndarray
    head_size: float


@dataclasses.dataclass(frozen=True)
class Annotated:
    """What a reader returns: a data set's people and what training needs to know about it.

    Attributes:
      name: data set, e.g. "mpii".
      skeleton: its joint set.
      people: every usable person.
      left_out: reason -> ids of the people who are not in ``people``.
      head_rule: how ``head_size`` is measured, one sentence.
      origin: coordinate that the published files give the first pixel's centre (MPII: 1);
        prediction files in published formats add it, nothing else does.
      sources: the files read.
      settings: whatever else dataset.json should keep, as JSON can hold it; ``coco`` is what
        results in COCO's format need. Other settings make other records.
      upright: photograph -> whether its annotations refer to it as its EXIF orientation turns it,
        where its annotated size tells.
      notes: sentences for the user: what was unusual in the files, and what was done about it.
    """

    name: str
    skeleton: Skeleton
    people: tuple[Person, ...]
    left_out: dict[str, list[str]]
    head_rule: str
    origin: int
    sources: tuple[str, ...]
    settings: dict = dataclasses.field(default_factory=dict)
    upright: dict[str, bool] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
