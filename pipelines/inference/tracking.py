"""People's numbers in videos: the same person keeps a number from frame to frame."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import optimize

MIN_OVERLAP = 0.3  # SORT's: a lower one is another person
ABSENCE = 1.0  # seconds that a person may be hidden and still keep the number


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[P, Q] float64, intersection over union of boxes [P, 4] and [Q, 4], (x, y, w, h) px."""
    a, b = boxes[:, None], others[None]
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(high - low, 0.0, None).prod(-1)
    return shared / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared)


class Tracker:
    """Numbers the people of a video's frames: 1, 2, ... in the order in which they appear.

    As SORT (Bewley et al., ICIP 2016) without its model of motion: a frame's boxes are assigned to
    where people were seen last, so that the overlaps' sum is the highest. A box that overlaps none
    of these by ``MIN_OVERLAP`` is a new person's.
    """

    def __init__(self, rate: float):
        """Start without people; ``rate`` in frames per second: see ``ABSENCE``."""
        self._patience = max(1, round(ABSENCE * rate))  # frames
        self._new, self._frame = itertools.count(1), 0
        self._seen: dict[int, tuple[np.ndarray, int]] = {}  # number -> last box and its frame

    def __call__(self, boxes: np.ndarray) -> tuple[int, ...]:
        """Numbers of the next frame's people, in the order of ``boxes`` [P, 4], (x, y, w, h) px."""
        self._frame += 1
        absent = {number: self._frame - 1 - frame for number, (_, frame) in self._seen.items()}
        known = [number for number, frames in absent.items() if frames <= self._patience]
        same = self._assigned(boxes, known)
        numbers = tuple(same.get(row) or next(self._new) for row in range(len(boxes)))
        self._seen = {number: self._seen[number] for number in known}
        self._seen.update((number, (box, self._frame)) for number, box in zip(numbers, boxes))
        return numbers

    def _assigned(self, boxes: np.ndarray, known: list[int]) -> dict[int, int]:
        """Row of ``boxes`` -> the known person's number."""
        last = np.reshape([self._seen[number][0] for number in known], (-1, 4))
        shared = overlaps(boxes, last)
        shared[shared < MIN_OVERLAP] = 0.0
        pairs = zip(*optimize.linear_sum_assignment(shared, maximize=True))
        return {row: known[column] for row, column in pairs if shared[row, column] > 0}
