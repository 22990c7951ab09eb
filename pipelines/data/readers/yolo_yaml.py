"""The data.yaml of a YOLO-pose data set: its classes, joints, mirror pairs and pictures."""

from __future__ import annotations

import re
import typing

import yaml

from hourglass.skeleton import Skeleton
from pipelines.data.readers import files, skeletons

_LIMIT = 1 << 18  # the largest known has 1,000 classes in 30 KB
_MAX_JOINTS = 1000
_MAX_DEPTH = 16


class DataFile(typing.NamedTuple):
    """What data.yaml holds of one class.

    Attributes:
      path: the file.
      category: the class's name.
      number: of the class, as rows of labels begin with it.
      joints: J names.
      named: whether the file or the user gave these names.
      dims: numbers of a joint in a row: 2 for x, y or 3 with a visibility.
      flip: ``flip_idx``, joint j of a mirrored picture is joint flip[j]; None where it is absent.
      root: ``path``, as it stands; "" where it is absent.
      train: entries, each a folder of pictures or a list of them in a .txt file.
      validation: the same; may be empty.
      notes: sentences for the user.
    """

    path: str
    category: str
    number: int
    joints: tuple[str, ...]
    named: bool
    dims: int
    flip: tuple[int, ...] | None
    root: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    notes: tuple[str, ...]


def parse(path: str, category: str = "", joints: str = "") -> DataFile:
    """Read the file and choose the class; "" when there is one only.

    ``joints``: "A,B,C", names in the order of the rows; "" takes ``kpt_names`` or numbers them.

    Raises FileNotFoundError when it is missing; ValueError naming it, the key and the rule when it
    is broken, or when the class is not there or not clear.
    """
    data = _load(path)
    count, dims = _shape(data, path)
    number, name = _class(data, category, path)
    names = _joints(data, number, count, joints, path)
    return DataFile(
        path,
        name,
        number,
        names or tuple(f"joint_{j}" for j in range(count)),
        bool(names),
        dims,
        _flip(data, count, path),
        _text(data.get("path"), "path", path),
        _entries(data, ("train",), path),
        _entries(data, ("val", "valid", "validation"), path),
        _notes(data),
    )


def skeleton_of(file: DataFile, mirror_pairs: str) -> Skeleton:
    """Return the skeleton: ``mirror_pairs`` come before ``flip_idx``, that before the names.

    Raises ValueError when none of the three tells which joints are left and right, or when
    ``flip_idx`` contradicts names with a side.
    """
    if mirror_pairs or (file.flip is None and file.named):
        return skeletons.skeleton_of(file.joints, (), mirror_pairs, file.path)
    if file.flip is None:
        raise ValueError(
            f"{file.path} has neither flip_idx nor names of joints, so nothing tells left from "
            "right: name the joints in the order of the rows with --joints=A,B,C or in kpt_names, "
            f"or give pairs with --mirror_pairs=joint_0:joint_1; {_SINGLE}"
        )
    _check_flip(file)
    return Skeleton(file.joints, tuple((a, b) for a, b in enumerate(file.flip) if a < b))


_SINGLE = "--mirror_pairs=joint_0:joint_0 if there are no pairs"


def _check_flip(file: DataFile) -> None:
    try:
        by_name = Skeleton(file.joints).mirror
    except ValueError:
        return  # names with one side only: flip_idx decides
    for a, b in enumerate(by_name):
        if a < b and file.flip[a] != b:
            raise ValueError(
                f"{file.path}: flip_idx doesn't pair {file.joints[a]} with {file.joints[b]}, as "
                f"their names do; correct it, or replace it with --mirror_pairs={file.joints[a]}:"
                f"{file.joints[b]}, then the other joints follow their names"
            )


def _load(path: str) -> dict:
    text = files.read_bytes(path, _LIMIT)
    try:
        _check_depth(text)
        # Aliases can stand for more than memory holds, and no tool writes them.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it has an alias (*name); write the value out")
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not readable as YAML: {reason}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{path} should hold keys such as train and names, not {files.short(data)}"
        )
    return data


def _check_depth(text: bytes) -> None:
    """Raise ValueError for brackets in brackets, in which the parser's time grows too fast."""
    depth = 0
    for mark in re.findall(rb"[][{}]", text):
        depth += 1 if mark in b"[{" else -1
        if depth > _MAX_DEPTH:
            raise ValueError(f"it has brackets more than {_MAX_DEPTH} deep")


def _shape(data: dict, path: str) -> tuple[int, int]:
    shape = data.get("kpt_shape")
    if shape is None:
        raise ValueError(
            f"{path} has no kpt_shape: [joints, 2 or 3], so its labels hold no joints; export the "
            "data set for pose (keypoints), or add the line"
        )
    good = isinstance(shape, list) and len(shape) == 2 and all(map(_is_count, shape))
    if not (good and 1 <= shape[0] <= _MAX_JOINTS and shape[1] in (2, 3)):
        raise ValueError(
            f"{path}: kpt_shape must be [joints, 2 or 3] with 1 to {_MAX_JOINTS} joints, not "
            f"{files.short(shape)}"
        )
    return shape[0], shape[1]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _class(data: dict, category: str, path: str) -> tuple[int, str]:
    classes = _classes(data, path)
    chosen = [(k, name) for k, name in classes.items() if not category or name == category]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(classes.values())
    if not chosen:
        raise ValueError(f"{path}: no class {category!r}, only {names}")
    raise ValueError(f"{path}: there are several classes; choose --category= of {names}")


def _classes(data: dict, path: str) -> dict[int, str]:
    names = data.get("names")
    if names is None and _is_count(data.get("nc")) and 0 < data["nc"] <= _MAX_JOINTS:
        names = list(range(data["nc"]))
    if isinstance(names, list):
        names = dict(enumerate(names))
    simple = isinstance(names, dict) and all(
        isinstance(one, str) or _is_count(one) for one in names.values()
    )
    if not (names and simple and all(map(_is_count, names))):
        raise ValueError(
            f"{path}: names must be a list of classes, or 0: name and so on, not "
            f"{files.short(names)}"
        )
    return {k: str(name) for k, name in names.items()}


def _joints(data: dict, number: int, count: int, given: str, path: str) -> tuple[str, ...]:
    """Names of the joints; () where there are none."""
    source, names = "--joints", skeletons.named(given) if given else ()
    if not given:
        source, names = f"{path}: kpt_names", data.get("kpt_names")
        names = names.get(number) if isinstance(names, dict) else names
        if files.is_empty(names):
            return ()
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise ValueError(
                f"{source} must list names of class {number}, not {files.short(names)}"
            )
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"{source} has {len(set(names))} different names, kpt_shape of {path} {count} joints; "
            "give one for each, in the order of the rows"
        )
    return tuple(names)


def _flip(data: dict, count: int, path: str) -> tuple[int, ...] | None:
    flip = data.get("flip_idx")
    if files.is_empty(flip):
        return None
    good = isinstance(flip, list) and all(map(_is_count, flip))
    good = good and sorted(flip) == list(range(count))
    if not (good and all(flip[flip[j]] == j for j in range(count))):
        raise ValueError(
            f"{path}: flip_idx must hold each of 0 to {count - 1} once, in pairs that change places"
            f" or on its own place, not {files.short(flip)}; correct it, or remove it and give "
            "--mirror_pairs=A:B"
        )
    return tuple(flip)


def _entries(data: dict, keys: tuple[str, ...], path: str) -> tuple[str, ...]:
    """Folders and lists under the first of these keys that the file has."""
    key = next((one for one in keys if not files.is_empty(data.get(one))), keys[0])
    value = data.get(key)
    values = value if isinstance(value, list) else [value]
    entries = tuple(_text(one, key, path) for one in values if not files.is_empty(one))
    if keys == ("train",) and not entries:
        raise ValueError(f"{path} names no training pictures: train: images/train, for example")
    return entries


def _text(value: object, key: str, path: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{path}: {key} must be a path, not {files.short(value)}")
    return value


def _notes(data: dict) -> tuple[str, ...]:
    if files.is_empty(data.get("test")):
        return ()
    return (f"test: {files.short(data['test'])} is not read; evaluation uses val",)
