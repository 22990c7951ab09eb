"""COCO's keypoint-results format, which ``pycocotools`` and other tools read."""

from __future__ import annotations

import numpy as np


def entry(
    image_id: int | str,
    category_id: int | str,
    joints: np.ndarray,
    confidence: np.ndarray,
    decimals: int,
) -> dict:
    """One person: ``keypoints`` (x, y, confidence of each joint) and ``score``, their mean.

    The format cannot omit a joint: numbers that are not finite become 0.

    Args:
      image_id: of the picture; it and ``category_id`` are those of the annotations.
      category_id: of the person.
      joints: [J, 2] 0-based image px.
      confidence: [J].
      decimals: of the keypoints' numbers.
    """
    numbers = np.column_stack([joints, confidence])
    numbers = np.where(np.isfinite(numbers), numbers, 0.0)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "keypoints": numbers.ravel().round(decimals).tolist(),
        "score": float(numbers[:, 2].mean()),
    }
