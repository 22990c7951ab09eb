"""Bounding boxes of people: read from files, matched to pictures, and turned into crops."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import re

import numpy as np

from pipelines.data import cropping
from pipelines.data.annotations import BOX_CONTEXT, Person
from pipelines.data.readers import coco_file, files

_Box = tuple  # (x, y, w, h) image px; pixel 0 spans 0 to 1, as in COCO
_FRAME = re.compile(r"(.+)#(\d+)")


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The contents of a file of boxes.

    Attributes:
      people: name of a picture in the file -> its boxes, (x, y, w, h) image px.
      ids: name -> COCO image id, if the file is in COCO's format.
      left_out: reason -> number of boxes that are not in ``people``.
    """

    people: dict[str, list[_Box]]
    ids: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    def of(self, name: str, frame: int | None = None) -> list[_Box]:
        """Boxes of a picture, or of a video's frame ("walk.mp4#12", else those of "walk.mp4")."""
        return self.people.get(f"{name}#{frame}", self.people.get(name, []))


def problem(box: _Box, width: int, height: int) -> str:
    """Why a box is invalid in a picture of ``width`` x ``height`` px; "" if it is valid."""
    x, y, w, h = box
    text = f"box {tuple(round(float(v), 2) for v in box)} (x, y, width, height)"
    if not all(map(math.isfinite, box)):
        return f"{text} is not finite: give four numbers in px"
    if w <= 0 or h <= 0:
        return f"{text} has no size: width and height must be positive, not corners"
    if cropping.is_outside(box, width, height):
        return f"{text} is outside the picture of {width} x {height} px"
    return ""


def person(box: _Box | None, width: int, height: int) -> Person:
    """A person's crop by the rule of training.

    Args:
      box: (x, y, w, h) image px: the crop is centred on it and ``BOX_CONTEXT`` times as wide as its
        longer side. None: the whole picture is the person, and its height is the crop's side.
      width: of the picture, px.
      height: of the picture, px.

    Returns:
      Person without joints; center in image px with pixel centres on integers.

    Raises ValueError for a box that is outside the picture or has no size.
    """
    if box is not None and problem(box, width, height):
        raise ValueError(problem(box, width, height))
    if box is None:
        center, side = cropping.square(((width - height) / 2, 0.0, height, height), context=1.0)
    else:
        center, side = cropping.square(box, BOX_CONTEXT)
    return Person(
        id="",
        image="",
        split="test",
        row=0,
        center=center,
        side=side,
        joints=np.zeros((0, 2)),
        state=np.zeros(0, np.uint8),
        head_size=math.nan,
    )


def read(path: str, annotations: str = "", category: int = 1, min_score: float = 0.0) -> Boxes:
    """Read boxes of pictures from a file.

    - CSV: ``file,x,y,w,h`` per line, with or without this heading.
    - JSON: ``{"file": [[x, y, w, h], ...], ...}``.
    - COCO's detections: ``[{"image_id" or "file_name", "category_id", "bbox", "score"}, ...]``.
    - COCO's annotations: ``{"images": [...], "annotations": [...]}``.

    Args:
      path: the file; .csv or JSON.
      annotations: COCO file with the pictures that ``image_id``s of detections refer to.
      category: COCO ``category_id`` of people; others are left out.
      min_score: detections with a lower score are left out.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an unsupported file, an entry that is not a box, or an unknown ``image_id``.
    """
    data = files.read_bytes(path)
    if path.lower().endswith(".csv"):
        return Boxes(_grouped(_from_csv(data, path)))
    parts = files.parse_json(data, path)
    names = {}
    if annotations:
        document = files.parse_json(files.read_bytes(annotations), annotations)
        names = _file_names(document, annotations)
    if isinstance(parts, dict) and {"images", "annotations"} <= set(parts):
        names, parts = _file_names(parts, path), parts["annotations"]
    if isinstance(parts, dict):
        return Boxes(_grouped(_from_dict(parts, path)))
    if isinstance(parts, list):
        return _from_coco(parts, path, names, category, min_score)
    raise ValueError(f"{path} contains no boxes, but a {type(parts).__name__}: {_FORMATS}")


_FORMATS = 'write {"file": [[x, y, w, h], ...]}, COCO detections, or CSV lines file,x,y,w,h'


def _numbers(values, where: str) -> _Box:
    try:
        box = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4 or any(isinstance(value, bool) for value in values):
        raise ValueError(f"{where} should be a box of four numbers x, y, w, h, not {values!r:.80}")
    return box


def _grouped(pairs) -> dict[str, list[_Box]]:
    people: dict[str, list[_Box]] = {}
    for name, boxes in pairs:
        people.setdefault(name, []).extend(boxes)
    return people


def _from_csv(data: bytes, path: str):
    try:
        rows = list(csv.reader(data.decode("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not readable as CSV: {error}; {_FORMATS}") from error
    if rows and [word.strip().lower() for word in rows[0][:2]] == ["file", "x"]:
        rows[0] = []
    for number, row in enumerate(rows, 1):
        if row:
            yield row[0].strip(), [_numbers(row[1:], f"{path}, line {number},")]


def _from_dict(parts: dict, path: str):
    for name, boxes in parts.items():
        if not isinstance(boxes, list):
            raise ValueError(
                f"{path}, {name!r}: {boxes!r:.80} should be a list of boxes; {_FORMATS}"
            )
        yield name, [_numbers(box, f"{path}, {name!r}:") for box in boxes]


def _file_names(document: object, path: str) -> dict[int | str, str]:
    """COCO image id -> file name of an annotation file."""
    images = coco_file.lists(document, ("images",), path)["images"]
    return {key: image["file_name"] for key, image in coco_file.images_by_id(images, path).items()}


def _from_coco(parts: list, path: str, names: dict, category: int, min_score: float) -> Boxes:
    numbers = {name: key for key, name in names.items() if isinstance(key, int)}
    boxes = Boxes({name: [] for name in names.values()}, numbers)
    for number, entry in enumerate(parts):
        where = f"{path}, entry {number}:"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} {entry!r:.80} is not an object with bbox; {_FORMATS}")
        reason = _unwanted(entry, category, min_score)
        if reason:
            boxes.left_out[reason] = boxes.left_out.get(reason, 0) + 1
            continue
        name = _name(entry, names, where)
        boxes.people.setdefault(name, []).append(_numbers(entry.get("bbox", ()), f"{where} bbox"))
        if isinstance(entry.get("image_id"), int):
            boxes.ids.setdefault(name, entry["image_id"])
    return boxes


def _unwanted(entry: dict, category: int, min_score: float) -> str:
    if entry.get("category_id", category) != category:
        return f"of another category than {category}"
    if entry.get("iscrowd"):
        return "a crowd"
    score = entry.get("score", math.inf)
    low = isinstance(score, (int, float)) and score < min_score
    return f"score below {min_score:g}" if low else ""


def _name(entry: dict, names: dict, where: str) -> str:
    name = entry.get("file_name", names.get(_hashable(entry.get("image_id"))))
    if name is None and isinstance(entry.get("image_id"), str):
        name = entry["image_id"]
    if not isinstance(name, str):
        raise ValueError(
            f"{where} image_id {entry.get('image_id')!r:.40} has no file_name: give the COCO "
            "annotation file of the images with these ids as --annotations"
        )
    return name


def _hashable(value):
    return value if isinstance(value, (int, str)) else None


def match(given: Boxes, inputs: list[str]) -> tuple[Boxes, list[str]]:
    """Boxes by input path, and the names in the file that match no input.

    A name in the file matches the input with that path, or with a path that ends in it.

    Raises ValueError for a name that matches several inputs.
    """
    by_base: dict[str, list[str]] = {}
    for path in inputs:
        by_base.setdefault(os.path.basename(path), []).append(path)
    people, ids, unknown = {}, {}, []
    for name, boxes in given.people.items():
        stem, number = _split(name, by_base)
        matches = [path for path in by_base.get(os.path.basename(stem), ()) if _ends(path, stem)]
        if len(matches) > 1:
            raise ValueError(
                f"boxes of {name!r} match {' and '.join(matches[:3])}: write more of the path"
            )
        if matches:
            people.setdefault(matches[0] + number, []).extend(boxes)
            ids.update({matches[0]: given.ids[name]} if name in given.ids else {})
        elif boxes:
            unknown.append(name)
    return Boxes(people, ids, given.left_out), unknown


def _split(name: str, by_base: dict) -> tuple[str, str]:
    """(file, "#12" or "") of a name that may be a video's frame."""
    frame = _FRAME.fullmatch(name)
    if frame and os.path.basename(name) not in by_base:
        return frame[1], f"#{int(frame[2])}"
    return name, ""


def _ends(path: str, name: str) -> bool:
    path, name = os.path.normpath(path), os.path.normpath(name)
    return path == name or path.endswith(os.sep + name)
