"""Whose point is whose: the shapes of one picture -> its people, animals or things."""

from __future__ import annotations

import collections
import typing

import numpy as np

from pipelines.data.readers.labelme_file import POINT, RECTANGLE, Shape


class Group(typing.NamedTuple):
    """Points of one person, and the rectangle around them, if there is one."""

    key: str
    rectangle: Shape | None
    points: list[Shape]


def group(shapes: tuple[Shape, ...], category: str) -> tuple[list[Group], list[tuple[str, str]]]:
    """Put points with one ``group_id`` together, others by the only rectangle that holds them.

    Where a picture has neither rectangles nor groups, all its points are one person's.

    Args:
      shapes: of one picture.
      category: label of the rectangles that count; "" counts all.

    Returns:
      The groups, and (reason, what) for whatever is in none: "shape 3", "group 2".
    """
    points = [one for one in shapes if one.kind == POINT]
    rectangles = [one for one in shapes if one.kind == RECTANGLE]
    lost = [
        (f"other shape ({one.kind})", f"shape {one.index}")
        for one in shapes
        if one.kind not in (POINT, RECTANGLE)
    ]
    alone = not rectangles and all(one.group is None for one in points)
    owners = collections.defaultdict(list)
    for point in points:
        key, reason = ("all", "") if alone else _owner(point, rectangles, category)
        if reason:
            lost.append((reason, f"shape {point.index}"))
        else:
            owners[key].append(point)
    groups = []
    for key in sorted({*owners, *map(_key, rectangles)}):
        around = [one for one in rectangles if _key(one) == key]
        reason = _unusable(around, owners[key], category)
        if reason:
            lost.append((reason, key))
        else:
            groups.append(Group(key, around[0] if around else None, owners[key]))
    return groups, lost


def _key(shape: Shape) -> str:
    """Of its group, or of a rectangle alone."""
    return f"shape {shape.index}" if shape.group is None else f"group {shape.group}"


def _owner(point: Shape, rectangles: list[Shape], category: str) -> tuple[str, str]:
    """Key of the group that a point belongs to, or "" and the reason why there is none."""
    if point.group is not None:
        return _key(point), ""
    around = [one for one in rectangles if _holds(one, point)]
    counted = [one for one in around if category in ("", one.label)]
    if len(counted) == 1:
        return _key(counted[0]), ""
    if counted:
        return "", "point in several rectangles (give it the group_id of one)"
    return "", "of another category" if around else "point outside of every rectangle"


def _holds(rectangle: Shape, point: Shape) -> bool:
    low, high = rectangle.points.min(axis=0), rectangle.points.max(axis=0)
    return bool(((low <= point.points[0]) & (point.points[0] <= high)).all())


def _unusable(around: list[Shape], points: list[Shape], category: str) -> str:
    if len(around) > 1:
        return "several rectangles with one group_id"
    if around and category not in ("", around[0].label):
        return "of another category"
    if not points:
        return "rectangle without points"
    labels = collections.Counter(one.label for one in points)
    return "a joint twice (give each person a group_id)" if max(labels.values()) > 1 else ""


def box_of(rectangle: Shape | None) -> np.ndarray | None:
    """[4] float64 x, y, width, height, image px; None without a rectangle."""
    if rectangle is None:
        return None
    low, high = rectangle.points.min(axis=0), rectangle.points.max(axis=0)
    return np.concatenate([low, high - low])
