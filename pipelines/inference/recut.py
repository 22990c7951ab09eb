"""Where to cut a person again who was given without a box: around the joints of the last cut."""

from __future__ import annotations

import numpy as np

from pipelines.data import cropping
from pipelines.data.annotations import JOINTS_CONTEXT

# Joints less sure than this share of the surest do not count: they may lie anywhere.
SURE = 0.3

# Fewer sure joints say too little about where the person is.
FEWEST = 4

# Cuts of almost the same place show the network almost the same.
SAME_SIDE, SAME_PLACE = 0.1, 0.05

# A cut this much smaller than the one before is more likely a mistake than a person.
SMALLEST = 0.25


def square(
    joints: np.ndarray, confidence: np.ndarray, center: np.ndarray, side: float
) -> tuple[np.ndarray, float] | None:
    """The square of the next cut, by the rule that cuts training people by their joints.

    Args:
      joints: [J, 2] image px, found in the last cut.
      confidence: [J].
      center: [2] image px, of the last cut.
      side: of the last cut, image px.

    Returns:
      Centre [2] float64 and side, image px; None where another cut would show nothing new.
    """
    sure = confidence >= SURE * confidence.max()
    if sure.sum() < FEWEST:
        return None
    found, length = cropping.square(cropping.box_around(joints[sure]), JOINTS_CONTEXT)
    length = float(np.clip(length, SMALLEST * side, side / SMALLEST))
    moved = np.abs(found - center).max() / length
    if moved < SAME_PLACE and abs(length / side - 1) < SAME_SIDE:
        return None
    return found, length
