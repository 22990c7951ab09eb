"""COCO's JSON: one category's joints and limbs, the pictures, and the annotations as they are."""

from __future__ import annotations

import typing

from pipelines.data import locate
from pipelines.data.readers import files


class File(typing.NamedTuple):
    """What one file holds of one category.

    Attributes:
      path: the file.
      category: name.
      category_id: as annotations refer to it.
      joints: J names.
      limbs: pairs of joint indices, from 0.
      images: id -> entry, with a ``file_name`` inside the images folder.
      annotations: of every category, unchecked.
      folder: to be put before the file names; may be "".
      notes: sentences on what was unusual.
    """

    path: str
    category: str
    category_id: int | str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    images: dict
    annotations: list
    folder: str
    notes: tuple[str, ...]


def parse(path: str, category: str, folder: str, images: str = "") -> File:
    """Read the file and choose the category; "" when only one has keypoints.

    ``images`` is the folder of the pictures, where they are looked for with ``locate``; "" takes
    their names as they are.

    Raises FileNotFoundError when it is missing; ValueError naming it, the entry and the rule when
    it is broken, or when the category is not there or not clear.
    """
    data = files.parse_json(files.read_bytes(path), path)
    entries = lists(data, ("images", "annotations", "categories"), path)
    chosen = _category(entries["categories"], category, path)
    where = f"{path}, category {chosen.get('name')!r}"
    joints = tuple(chosen["keypoints"])
    if not all(isinstance(name, str) and name for name in joints):
        raise ValueError(f"{where}: keypoints should be names, not {files.short(joints)}")
    limbs, bad = _limbs(chosen.get("skeleton") or [], len(joints))
    notes = (f"{where}: {bad}; drawn without limbs",) if bad else ()
    pictures = images_by_id(entries["images"], path)
    if images:
        pictures, moved = _located(pictures, path, images)
        notes += moved
    return File(
        path,
        str(chosen.get("name")),
        id_of(chosen, "id", where),
        joints,
        limbs,
        _inside(pictures, path),
        entries["annotations"],
        folder,
        notes,
    )


def _located(images: dict, path: str, folder: str) -> tuple[dict, tuple[str, ...]]:
    """Return them with names that lead to files in ``folder``, and a note where names changed."""
    paths = locate.locate(folder, path, (entry["file_name"] for entry in images.values()))
    renamed = {k: {**one, "file_name": paths[one["file_name"]]} for k, one in images.items()}
    return renamed, locate.notes(paths)


def lists(data: object, keys: tuple[str, ...], path: str) -> dict[str, list[dict]]:
    """Return the file's lists of objects under these keys; ValueError where there is none."""
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in keys):
        raise ValueError(
            f"{path} should be COCO JSON: an object with the lists {', '.join(keys)}, not "
            f"{sorted(data) if isinstance(data, dict) else files.short(data)}"
        )
    for key in keys:
        bad = [entry for entry in data[key] if not isinstance(entry, dict)]
        if bad:
            raise ValueError(f"{path}: {key} should hold objects, not {files.short(bad[0])}")
    return {key: data[key] for key in keys}


def images_by_id(entries: list[dict], path: str) -> dict[int | str, dict]:
    """Id -> entry of the list ``images``.

    Raises ValueError naming the entry: without an id or a ``file_name``, or with an id that occurs
    twice.
    """
    images = {}
    for number, entry in enumerate(entries):
        where = f"{path}, image {number}"
        key = id_of(entry, "id", where)
        files.file_name(entry.get("file_name"), where)
        if key in images:
            raise ValueError(f"{where}: the id {key} occurs twice in images; make them different")
        images[key] = entry
    return images


def _inside(images: dict[int | str, dict], path: str) -> dict[int | str, dict]:
    """Return them when no ``file_name`` leads out of the images folder."""
    for number, entry in enumerate(images.values()):
        files.image_path(entry["file_name"], f"{path}, image {number}")
    return images


def _category(categories: list[dict], name: str, path: str) -> dict:
    able = [one for one in categories if isinstance(one.get("keypoints"), list)]
    able = [one for one in able if one["keypoints"]]
    chosen = [one for one in able if not name or one.get("name") == name]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(str(one.get("name")) for one in able)
    if not able:
        raise ValueError(f"{path}: no category names keypoints; export keypoints, not boxes only")
    if not chosen:
        raise ValueError(f"{path}: no category {name!r} has keypoints, only {names}")
    raise ValueError(f"{path}: several categories have keypoints; choose --category= of {names}")


def id_of(entry: dict, name: str, where: str) -> int | str:
    """Return an id as the file writes it, a whole number or a text; ValueError otherwise."""
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f'{where}: "{name}" must be a whole number, not {files.short(value)}')
    return value


def size(image: dict, where: str) -> tuple[int, int] | None:
    """Return a picture's annotated width and height, px; None where one is absent or 0.

    Raises ValueError for anything but numbers of 0 to ``MAX_PX``.
    """
    values = [files.numbers(image, key, (), where, optional=True) for key in ("width", "height")]
    for key, value in zip(("width", "height"), values):
        if value is not None and value < 0:
            raise ValueError(f'{where}: "{key}" must be positive, not {files.short(image[key])}')
    return tuple(round(float(value)) for value in values) if all(values) else None


def _limbs(pairs: object, joints: int) -> tuple[tuple[tuple[int, int], ...], str]:
    """COCO's pairs, which count from 1, as pairs that count from 0; each once.

    Also what is wrong with them, and then no pairs; "" when nothing is.
    """
    limbs = {}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        numbers = pair if isinstance(pair, list) and len(pair) == 2 else [None]
        if not all(isinstance(n, int) and 1 <= n <= joints for n in numbers):
            rule = f"skeleton should hold pairs of joint numbers from 1 to {joints}"
            return (), f"{rule}, not {files.short(pair)}"
        a, b = sorted(n - 1 for n in numbers)
        if a != b:
            limbs[a, b] = None
    return tuple(limbs), ""
