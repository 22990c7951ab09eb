"""MPII people from the four published annotation formats, or from any file in the same schema.

| file | what it lacks |
|---|---|
| bearpaw JSON, ``.json``, ``.json.gz`` | head boxes (unless there is a ``head_box`` key) |
| HRNet / mmpose JSON | head boxes, person numbers, occlusion (``joints_vis`` 1 is just labelled) |
| Newell's ``.h5`` | fractions of pixels: coordinates are truncated (5 joints are 1 px off) |
| the original ``.mat`` | the validation split |

All are translated into the bearpaw schema (dicts with ``img_paths``, ``people_index``, ``objpos``,
``scale_provided``, ``joint_self``; raw 1-based values), and one path leads from there to people.
``mpii_validation.csv`` supplies what is missing about the 2,958 published validation people.

Compared on those 2,958: ``valid.h5`` has the bearpaw JSON's people in the same order, ``index`` and
``person`` counting from 0 where the JSON counts from 1, the same visibility flags, and centre and
scale already adjusted. ``detections_our_format.mat`` agrees with the JSON's joints to 0.001 px, but
for 13 joints of 10 people where one of its coordinates is 0.
"""

from __future__ import annotations

import collections
import csv
import functools
import io
import os
import typing

import h5py
import numpy as np

from hourglass.skeleton import MPII
from pipelines.data.annotations import (
    LABELLED,
    MIN_HEAD_SIZE,
    MISSING,
    OCCLUDED,
    SPLITS,
    Annotated,
    Person,
)
from pipelines.data.readers import files, mpii_mat

FILES = (
    "mpii_annotations.json",
    "mpii_annotations.json.gz",
    "mpii_human_pose_v1_u12_1.mat",
    "mpii_human_pose_v1_u12_2/mpii_human_pose_v1_u12_1.mat",
    "annot/trainval.json",
    "annot/train.json",
    "annot/train.h5",
    "annot/valid.json",
    "annot/valid.h5",
)

ORIGIN = 1

# 0.6 x head-box diagonal over |head top - upper neck|, on the 2,892 validation people who have both
# joints: median 0.75000, 5th to 95th percentile 0.74999 to 0.75001, 1st to 99th 0.745 to 0.756,
# extremes 0.62 and 0.77. (The published points lie on the box's diagonal.)
HEAD_SIZE_PER_HEAD_LENGTH = 0.75

_NO_CROP = "no centre or scale"
_NO_JOINTS = "no joints"
_SAME_PHOTOGRAPH = "in the photograph of one of the 2,958 validation people"


class _Published(typing.NamedTuple):
    row: int
    person: int
    head_box: tuple[float, ...]
    center: tuple[float, float]
    image: str
    scale: float


def read(annotations: str, name: str = "mpii") -> Annotated:
    """Read every usable person of an MPII annotation file, whichever of the four formats it has.

    Positions become 0-based (1 is subtracted here and nowhere else); the crop's adjustment
    ``center.y += 15 * scale; scale *= 1.25`` is applied once, also where the file already holds it.

    Joints: with a valid position (x and y > 0, 1-based), flag 0 is OCCLUDED and flag 1 LABELLED.
    No valid position is MISSING: in training also for the 335 joints flagged visible, head tops
    and necks beyond the photograph's edge. The 40 such joints of validation people stay LABELLED
    where they are, because published PCKh counts them (``jnt_missing`` is 0 for them).

    Split: the file's own flag (bearpaw), otherwise validation for the 2,958 published people and
    train or test for the rest. A file without any joints is a test file. Rows of validation people
    are their indices in the published order; other rows count the people kept, in file order.

    Left out, by reason: people without centre or scale; people without joints where others have
    them; and, as in the bearpaw JSON, training people in a photograph of a published validation
    person. Of the JSON none is left out. These are the rules of the script that made the JSON
    (pytorch-pose's ``miscs/gen_mpii.m``), so the ``.mat`` should give the same 22,246 + 2,958.

    ``id`` is ``image#person``, the same from every source. HRNet files have no person numbers, so
    there only validation people get it, matched by their centre; others are ``image@x,y``.

    Args:
      annotations: the file, local or gs://. Its content decides the format, not its name.
      name: the data set. Only for "mpii" is the shipped table of validation people consulted.

    Raises FileNotFoundError when the file is missing; ValueError when it is empty, broken or not in
    one of the formats, naming the entry and key, for an image path that leaves the images folder,
    and for a person that occurs twice.
    """
    published = _published() if name == "mpii" else {}
    entries = _entries(files.read_bytes(annotations), annotations, published)
    if all(files.is_empty(entry.get("joint_self")) for entry in entries):
        entries = [{**entry, "split": "test"} for entry in entries]
    people, left_out, estimated = _people(entries, annotations, published)
    return Annotated(
        name=name,
        skeleton=MPII,
        people=people,
        left_out=left_out,
        head_rule=_head_rule(estimated),
        origin=ORIGIN,
        sources=(annotations,),
    )


def _head_rule(estimated: int) -> str:
    rule = "0.6 x the diagonal of the annotated head box (MPII's PCKh)"
    if not estimated:
        return rule
    estimate = f"{HEAD_SIZE_PER_HEAD_LENGTH} x |head top - upper neck|"
    return f"{rule}; estimated as {estimate} for {estimated} people without a head box"


@functools.cache
def _published() -> dict[str, _Published]:
    """Map id -> published validation person."""
    path = os.path.join(os.path.dirname(__file__), "mpii_validation.csv")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {
        f"{row['image']}#{row['person']}": _Published(
            number,
            int(row["person"]),
            tuple(float(row[key]) for key in ("x1", "y1", "x2", "y2")),
            (float(row["center_x"]), float(row["center_y"])),
            row["image"],
            float(row["scale"]),
        )
        for number, row in enumerate(rows)
    }


def published_people() -> dict[str, _Published]:
    """Map id -> the 2,958 published validation people, in the published order.

    Each has row, person, head_box (x1, y1, x2, y2), center and scale as in the annotations (1-based
    px, before any adjustment) and image.
    """
    return _published()


# ---- formats -> entries in the bearpaw schema


def _entries(data: bytes, path: str, published: dict[str, _Published]) -> list[dict]:
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        return _from_newell(data, path)
    if data.startswith(b"MATLAB"):
        return mpii_mat.entries(data, path)
    entries = files.parse_json(data, path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} should be a JSON list of people, not {files.short(entries)}")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not ("img_paths" in entry or "image" in entry):
            raise ValueError(
                f'{path}, entry {number}: a person with key "img_paths" (bearpaw) or "image" '
                f"(HRNet, mmpose) was expected, not {files.short(entry)}"
            )
    if "img_paths" in entries[0]:
        return entries
    numbers = {(one.image, *one.center): one.person for one in published.values()}
    split = _split_of_file(path)
    return [
        {**_from_hrnet(entry, f"{path}, entry {number}", numbers), "split": split}
        for number, entry in enumerate(entries)
    ]


def _split_of_file(path: str) -> str:
    stem = os.path.basename(path).lower()
    return "validation" if "val" in stem and "train" not in stem else "train"


def _from_hrnet(entry: dict, where: str, numbers: dict[tuple, int]) -> dict:
    center = files.numbers(entry, "center", (2,), where)
    joints = files.numbers(entry, "joints", (len(MPII), 2), where, optional=True)
    person = numbers.get((files.file_name(entry.get("image"), where), *center))
    translated = {
        "img_paths": entry.get("image"),
        "people_index": person,
        "objpos": center,
        "scale_provided": entry.get("scale"),
        "joint_self": None,
    }
    if joints is not None:
        visible = files.numbers(entry, "joints_vis", (len(MPII),), where)
        translated["joint_self"] = np.concatenate([joints, visible[:, None]], axis=1)
    return translated


def _from_newell(data: bytes, path: str) -> list[dict]:
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            columns = _newell_columns(file, path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from error
    scale = columns["scale"] / 1.25
    center = columns["center"] - np.stack([0 * scale, 15 * scale], axis=1)
    tables = np.concatenate([columns["part"], columns["visible"][..., None]], axis=2)
    split = _split_of_file(path)
    return [
        {
            "img_paths": columns["imgname"][i].decode("utf-8", "replace"),
            "people_index": columns["person"][i] + 1,
            # Written as (-1, -1) and -1 for people without centre; the adjustment moved them.
            "objpos": center[i] if scale[i] > 0 else None,
            "scale_provided": scale[i],
            "joint_self": tables[i] if (columns["part"][i] > 0).any() else None,
            "head_size": columns["normalize"][i],
            "split": split,
        }
        for i in range(len(scale))
    ]


def _newell_columns(file: h5py.File, path: str) -> dict[str, np.ndarray]:
    required = {"imgname": (), "person": (), "center": (2,), "scale": ()}
    joints = {"part": (len(MPII), 2), "visible": (len(MPII),), "normalize": ()}
    if "part" in file:
        required.update(joints)
    count = len(file["imgname"]) if "imgname" in file else 0
    for key, shape in required.items():
        column = file[key] if key in file else f"only {sorted(file)}"
        if key not in file or getattr(column, "shape", None) != (count, *shape) or not count:
            rule = " x ".join(["people", *map(str, shape)])
            raise ValueError(f'{path} needs a data set "{key}" of shape {rule}; it has {column}')
        kinds = "SO" if key == "imgname" else "fiu"
        if column.nbytes > files.LIMIT or column.dtype.kind not in kinds:
            raise ValueError(f'{path}: data set "{key}" is not of the published type: {column}')
    columns = {key: file[key][:] for key in required}
    for key in joints.keys() - required.keys():
        columns[key] = np.zeros((count, *joints[key]))
    return columns


# ---- entries -> people


class _Entry(typing.NamedTuple):
    id: str
    image: str
    split: str
    center: np.ndarray | None
    scale: np.ndarray | None
    joints: np.ndarray
    state: np.ndarray
    head_size: float | None


def _parsed(entry: dict, where: str, published: dict[str, _Published]) -> _Entry:
    image = files.image_path(entry.get("img_paths"), where)
    center = files.numbers(entry, "objpos", (2,), where, optional=True)
    key = _id(entry, image, center, where)
    split = _split(entry, key, published, where)
    return _Entry(
        key,
        image,
        split,
        center,
        files.numbers(entry, "scale_provided", (), where, optional=True),
        *_joints(_joint_table(entry, where), split),
        _annotated_head_size(entry, key, published, where),
    )


def _unusable(
    person: _Entry, photographs: set[str], published: dict[str, _Published]
) -> str | None:
    if person.center is None or person.scale is None or person.scale <= 0:
        return _NO_CROP
    if person.split != "test" and not person.state.any():
        return _NO_JOINTS
    if person.split == "train" and person.image in photographs and person.id not in published:
        return _SAME_PHOTOGRAPH
    return None


def _people(
    entries: list[dict], path: str, published: dict[str, _Published]
) -> tuple[tuple[Person, ...], dict[str, list[str]], int]:
    """Return the people kept, who is left out and why, and how many head sizes are estimates."""
    photographs = {one.image for one in published.values()}
    people, left_out, estimated = {}, {}, 0
    rows = collections.Counter()
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        person = _parsed(entry, where, published)
        reason = _unusable(person, photographs, published)
        if reason:
            left_out.setdefault(reason, []).append(person.id)
            continue
        if person.id in people:
            raise ValueError(f"{where}: the person {person.id} occurs twice; remove one of the two")
        row = len(published) * (person.split == "validation") + rows[person.split]
        if person.split == "validation" and person.id in published:
            row = published[person.id].row
        rows[person.split] += 1
        people[person.id] = _person(person, row)
        estimated += person.head_size is None and np.isfinite(people[person.id].head_size)
    return tuple(people.values()), left_out, int(estimated)


def _person(entry: _Entry, row: int) -> Person:
    head_size = entry.head_size
    if head_size is None:
        head_size = _estimated_head_size(entry.joints, entry.state)
    return Person(
        id=entry.id,
        image=entry.image,
        split=entry.split,
        row=row,
        center=entry.center - ORIGIN + np.array([0.0, 15.0]) * entry.scale,
        side=200.0 * float(1.25 * entry.scale),
        joints=entry.joints,
        state=entry.state,
        head_size=head_size,
    )


def _joints(table: np.ndarray | None, split: str) -> tuple[np.ndarray, np.ndarray]:
    """[16, 3] (x, y, flag), 1-based px -> ([16, 2] 0-based px, [16] state)."""
    if table is None:
        return np.zeros((len(MPII), 2)), np.zeros(len(MPII), np.uint8)
    position, visible = table[:, :2], table[:, 2] > 0
    annotated = (position > 0).all(axis=1)
    if split == "validation":
        annotated |= visible
    state = np.where(annotated, np.where(visible, LABELLED, OCCLUDED), MISSING)
    return np.where(annotated[:, None], position - ORIGIN, 0.0), state.astype(np.uint8)


def _annotated_head_size(
    entry: dict, key: str, published: dict[str, _Published], where: str
) -> float | None:
    if key in published:
        box = np.array(published[key].head_box)
    else:
        box = files.numbers(entry, "head_box", (4,), where, optional=True)
    if box is None:
        size = files.numbers(entry, "head_size", (), where, optional=True)
        return float(size) if size is not None and size > 0 else None
    if not (box[2:] > box[:2]).all():
        raise ValueError(f'{where}: "head_box" must be x1 < x2, y1 < y2, not {box.tolist()}')
    return 0.6 * float(np.linalg.norm(box[2:] - box[:2]))


def _estimated_head_size(joints: np.ndarray, state: np.ndarray) -> float:
    top, neck = MPII.index("head_top"), MPII.index("upper_neck")
    length = float(np.linalg.norm(joints[top] - joints[neck]))
    known = state[top] != MISSING and state[neck] != MISSING and length >= MIN_HEAD_SIZE
    return HEAD_SIZE_PER_HEAD_LENGTH * length if known else float("nan")


def _split(entry: dict, key: str, published: dict[str, _Published], where: str) -> str:
    if "split" not in entry:
        return "validation" if files.numbers(entry, "isValidation", (), where) else "train"
    if entry["split"] not in SPLITS:
        raise ValueError(
            f'{where}: "split" must be one of {SPLITS}, not {files.short(entry["split"])}'
        )
    return "validation" if entry["split"] == "train" and key in published else entry["split"]


def _id(entry: dict, image: str, center: np.ndarray | None, where: str) -> str:
    if "people_index" in entry and entry["people_index"] is None:
        return f"{image}@" + ("" if center is None else f"{center[0]:.12g},{center[1]:.12g}")
    person = files.numbers(entry, "people_index", (), where)
    if person != int(person):
        raise ValueError(f'{where}: "people_index" must be a whole number, not {person}')
    return f"{image}#{int(person)}"


def _joint_table(entry: dict, where: str) -> np.ndarray | None:
    value = entry.get("joint_self")
    if isinstance(value, str) and value:
        entry = {"joint_self": files.parse_json(value.encode(), f'{where}, "joint_self"')}
    return files.numbers(entry, "joint_self", (len(MPII), 3), where, optional=True)
