"""Files of bounding boxes: CSV, JSON, and COCO's detections and annotations."""

from __future__ import annotations

import collections
import csv
import math

from pipelines.data.readers import coco_file, files
from pipelines.inference.boxes import Boxes, numbers, problem

_FORMATS = 'write {"file": [[x, y, w, h], ...]}, COCO detections, or CSV lines file,x,y,w,h'


def read(
    path: str, annotations: str = "", category: int | str = 1, min_score: float = 0.0
) -> Boxes:
    """Read boxes of pictures from a file.

    - CSV: ``file,x,y,w,h`` per line, with or without this heading.
    - JSON: ``{"file": [[x, y, w, h], ...], ...}``.
    - COCO's detections: ``[{"image_id" or "file_name", "category_id", "bbox", "score"}, ...]``.
    - COCO's annotations: ``{"images": [...], "annotations": [...]}``.

    An entry that is not a box costs that entry: it is in ``people`` as it is, to be named with its
    picture, or in ``problems`` where it belongs to none.

    Args:
      path: the file; .csv or JSON.
      annotations: COCO file with ids and sizes of the pictures, which the ``image_id``s of
        detections refer to.
      category: COCO ``category_id`` of people; others are left out.
      min_score: detections with a lower score are left out.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an unsupported file, a file without any box, or without one of the category.
    """
    data = files.read_bytes(path)
    document = files.parse_json(files.read_bytes(annotations), annotations) if annotations else None
    if path.lower().endswith(".csv"):
        boxes, _ = _pictures(document, annotations)
        _add_csv(boxes, data, path)
    else:
        parts = files.parse_json(data, path)
        boxes = _from_json(parts, path, document, annotations, category, min_score)
    _check_any(boxes, path)
    return boxes


def _check_any(boxes: Boxes, path: str) -> None:
    """Raise ValueError where no entry of the file is a box: it is probably another kind of file."""
    entries = [entry for of_picture in boxes.people.values() for entry in of_picture]
    bad = [f"{e.where}: {problem(e.box, 1, 1)}" for e in entries if not numbers(e.box)]
    bad += boxes.problems
    if bad and len(bad) == len(entries) + len(boxes.problems):
        raise ValueError(f"no entry of {path} can be used, such as {bad[0]}; {_FORMATS}")


def _from_json(
    parts: object,
    path: str,
    document: object,
    annotations: str,
    category: int | str,
    min_score: float,
) -> Boxes:
    if isinstance(parts, dict) and {"images", "annotations"} <= set(parts):
        document, annotations, parts = parts, path, parts["annotations"]
    boxes, names = _pictures(document, annotations)
    if isinstance(parts, dict):
        _add_lists(boxes, parts, path)
    elif isinstance(parts, list):
        others = _add_coco(boxes, parts, path, names, category, min_score)
        objects = sum(isinstance(entry, dict) for entry in parts)
        _check_category(path, objects, others, category, document)
    else:
        raise ValueError(f"{path} contains no boxes, but a {type(parts).__name__}: {_FORMATS}")
    return boxes


def _pictures(document: object, path: str) -> tuple[Boxes, dict[int | str, str]]:
    """Pictures of a COCO file, or of None, as Boxes without people; and image id -> file name."""
    boxes, names = Boxes(), {}
    images = coco_file.lists(document, ("images",), path)["images"] if document is not None else []
    for number, image in enumerate(images):
        where = f"{path}, image {number}"
        try:
            key = coco_file.id_of(image, "id", where)
            name = files.file_name(image.get("file_name"), where)
        except ValueError as error:
            boxes.problems.append(str(error))
            continue
        if key in names:
            raise ValueError(f"{where}: the id {key} occurs twice in images; make them different")
        names[key] = name
        if name in boxes.people:
            boxes.problems.append(f"{where}: {name!r} has the id {boxes.ids[name]} already")
            continue
        boxes.people[name], boxes.ids[name] = [], key
        try:
            size = coco_file.size(image, where)
            boxes.sizes.update({name: size} if size else {})
        except ValueError as error:
            boxes.problems.append(str(error))
    return boxes, names


def _add_csv(boxes: Boxes, data: bytes, path: str) -> None:
    try:
        rows = list(csv.reader(data.decode("utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not readable as CSV: {error}; {_FORMATS}") from error
    if rows and [word.strip().lower() for word in rows[0][:2]] == ["file", "x"]:
        rows[0] = []
    for number, row in enumerate(rows, 1):
        if row:
            boxes.add(row[0].strip(), row[1:], f"{path}, line {number}")


def _add_lists(boxes: Boxes, parts: dict, path: str) -> None:
    for name, values in parts.items():
        boxes.people.setdefault(name, [])
        if not isinstance(values, list):
            rule = f"{files.short(values)} should be a list of boxes"
            boxes.problems.append(f"{path}, {name!r}: {rule}")
            continue
        for number, value in enumerate(values):
            boxes.add(name, value, f"{path}, {name!r}, box {number}")


def _add_coco(
    boxes: Boxes,
    parts: list,
    path: str,
    names: dict[int | str, str],
    category: int | str,
    min_score: float,
) -> collections.Counter:
    """Add COCO's entries of a category, and count those of others by category id."""
    left_out, others = collections.Counter(), collections.Counter()
    for number, entry in enumerate(parts):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            boxes.problems.append(f"{where}: {files.short(entry)} is not an object with bbox")
        elif entry.get("category_id", category) != category:
            left_out[f"of another category than {category}"] += 1
            others[files.short(entry["category_id"])] += 1
        elif _unwanted(entry, min_score):
            left_out[_unwanted(entry, min_score)] += 1
        else:
            _add_entry(boxes, entry, names, where)
    boxes.left_out.update(left_out)
    return others


def _unwanted(entry: dict, min_score: float) -> str:
    score = entry.get("score", math.inf)
    if isinstance(score, (int, float)) and score < min_score:
        return f"score below {min_score:g}"
    return "a crowd" if entry.get("iscrowd") else ""


def _add_entry(boxes: Boxes, entry: dict, names: dict[int | str, str], where: str) -> None:
    key = entry.get("image_id")
    is_id = isinstance(key, (int, str)) and not isinstance(key, bool)
    name = entry.get("file_name", names.get(key) if is_id else None)
    if name is None and isinstance(key, str):
        name = key
    if not isinstance(name, str):
        boxes.problems.append(
            f"{where}: image_id {files.short(key)} has no file_name: give the COCO annotation "
            "file of the images with these ids as --annotations"
        )
        return
    boxes.add(name, entry.get("bbox"), where)
    if is_id:
        boxes.ids.setdefault(name, key)


def _check_category(
    path: str, entries: int, others: collections.Counter, category: int | str, document: object
) -> None:
    """Raise ValueError where all of a file's entries are of other categories."""
    if not others or sum(others.values()) < entries:
        return
    listed = document.get("categories") if isinstance(document, dict) else None
    known = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    names = {files.short(one.get("id")): f"{files.short(one.get('name'))}, " for one in known}
    have = ", ".join(f"{key} ({names.get(key, '')}{n:,})" for key, n in others.items())
    raise ValueError(
        f"no box in {path} is of the category {category!r}, only of {have}; choose with --category"
    )
