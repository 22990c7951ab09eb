"""One JSON of labelme, or of X-AnyLabeling, which writes the same: a picture and its shapes."""

from __future__ import annotations

import typing

import numpy as np

from pipelines.data.readers import coco_file, files

POINT, RECTANGLE = "point", "rectangle"

# The picture may be in it as base64, a third larger than the 256 MB that a picture may have.
_LIMIT = 400_000_000

_OCCLUDED = {"occluded", "hidden", "invisible", "not visible"}


class Shape(typing.NamedTuple):
    """One annotated shape.

    Attributes:
      index: in the file, from 0.
      kind: ``shape_type``.
      label: the joint's name or, of a rectangle, the category's.
      points: [N, 2] float64 image px; of other kinds than POINT and RECTANGLE empty.
      group: ``group_id``, None where it has none.
      occluded: whether a flag or the description says so.
      flags: those that are set and say something else.
    """

    index: int
    kind: str
    label: str
    points: np.ndarray
    group: int | None
    occluded: bool
    flags: tuple[str, ...]


class Picture(typing.NamedTuple):
    """A file's picture, as it names it; its annotated width and height, px; its shapes."""

    name: str
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]


def parse(path: str) -> Picture | None:
    """Read a file; None when it is JSON of another kind, without "shapes" and "imagePath".

    Raises FileNotFoundError when it is missing; ValueError with its path when it is broken.
    """
    data = files.parse_json(files.read_bytes(path, _LIMIT), path)
    if not isinstance(data, dict) or not {"shapes", "imagePath"} <= set(data):
        return None
    name = files.file_name(data["imagePath"], path)
    size = coco_file.size(
        {"width": data.get("imageWidth"), "height": data.get("imageHeight")}, path
    )
    if not isinstance(data["shapes"], list):
        raise ValueError(f"{path}: shapes must be a list, not {files.short(data['shapes'])}")
    shapes = (_shape(entry, k, f"{path}, shape {k}") for k, entry in enumerate(data["shapes"]))
    return Picture(name, size, tuple(shapes))


def _shape(entry: object, index: int, where: str) -> Shape:
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise ValueError(f"{where}: it must be an object with a label, not {files.short(entry)}")
    kind, group = entry.get("shape_type") or "polygon", entry.get("group_id")
    if not isinstance(kind, str) or not (group is None or type(group) is int):
        raise ValueError(
            f"{where}: shape_type must be a word and group_id a whole number or null, not "
            f"{files.short(kind)} and {files.short(group)}"
        )
    occluded, flags = _flags(entry)
    points = _points(entry, kind, where)
    return Shape(index, kind, entry["label"].strip(), points, group, occluded, flags)


def _points(entry: dict, kind: str, where: str) -> np.ndarray:
    """Points of the kinds that are used: one, or two or four corners of a rectangle."""
    if kind not in (POINT, RECTANGLE):
        return np.zeros((0, 2))
    count = 1 if kind == POINT else 4 if _length(entry.get("points")) == 4 else 2
    return files.numbers(entry, "points", (count, 2), where)


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def _flags(entry: dict) -> tuple[bool, tuple[str, ...]]:
    """Whether a shape is marked as occluded, and the other flags that are set.

    X-AnyLabeling has "difficult" for it, which it exports as visibility 1.
    """
    flags = entry.get("flags")
    marks = [str(key) for key, value in flags.items() if value] if isinstance(flags, dict) else []
    words = {mark.strip().lower() for mark in (*marks, str(entry.get("description") or ""))}
    others = tuple(mark for mark in marks if mark.strip().lower() not in _OCCLUDED)
    return bool(words & _OCCLUDED) or entry.get("difficult") is True, others
