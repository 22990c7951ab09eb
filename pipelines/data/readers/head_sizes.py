"""What PCKh is divided by where annotations hold no head boxes: the rule that --head names."""

from __future__ import annotations

import math
import re
import typing

import numpy as np

from hourglass.skeleton import Skeleton
from pipelines.data.annotations import MIN_HEAD_SIZE, MISSING


def rule_of(text: str, skeleton: Skeleton, path: str) -> tuple[typing.Callable, str]:
    """Return the function of an instance that returns its head size, px, and the rule in words.

    Args:
      text: "joint:A,joint:B", the distance of two joints (NaN where one of them is MISSING), or
        "box:F", F times the longer side of the box.
      skeleton: the joints.
      path: of the annotations, for errors.

    Raises ValueError for anything else, with two rules to copy.
    """
    box = re.fullmatch(r"box:([0-9.eE+-]+)", text)
    two = re.fullmatch(r"joint:(.+),\s*joint:(.+)", text)
    if box and 0 < _number(box[1]) <= 1:
        fraction = _number(box[1])
        rule = f"{fraction:g} x the longer side of the bbox (or of the joints' box where none is)"
        return lambda instance: fraction * float(instance.box[2:].max()), rule
    if two and two[1] != two[2] and {two[1], two[2]} <= set(skeleton.joints):
        ends = [skeleton.index(two[1]), skeleton.index(two[2])]
        rule = f"|{two[1]} - {two[2]}|; those without both are not scored by PCKh"
        return lambda instance: _distance(instance.joints, instance.state, ends), rule
    raise ValueError(
        (f"--head={text} is invalid. " if text else "")
        + f"{path} has no head boxes, so PCKh needs a unit: --head=box:0.1 (0 to 1 times the box's "
        f"longer side, known for all) or {_example(skeleton)} (the distance of two joints; those "
        f"without both are not scored). Joints: {', '.join(skeleton.joints)}"
    )


def _example(skeleton: Skeleton) -> str:
    pairs = [(a, b) for a, b in enumerate(skeleton.mirror) if a < b]
    a, b = (pairs or [(0, len(skeleton) - 1)])[0]
    return f'--head="joint:{skeleton.joints[a]},joint:{skeleton.joints[b]}"'


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _distance(joints: np.ndarray, state: np.ndarray, ends: list[int]) -> float:
    if (state[ends] == MISSING).any():
        return math.nan
    length = float(np.linalg.norm(joints[ends[0]] - joints[ends[1]]))
    return length if length >= MIN_HEAD_SIZE else math.nan
