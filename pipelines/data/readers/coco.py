"""People, animals or things with keypoints in COCO's format, as CVAT and Label Studio export it.

What the format defines (https://cocodataset.org/#format-data): keypoints are "0-indexed" pixel
locations, so a whole number is a pixel's centre and nothing is added or taken off. Boxes are
``x, y, width, height`` from the picture's corner, that is from the first pixel's edge, half a
pixel before its centre. Limbs (``skeleton``) count joints from 1.
"""

from __future__ import annotations

import collections
import hashlib
import math
import os
import re
import typing

import numpy as np

from hourglass.skeleton import Skeleton
from pipelines.data import cropping, picture_sizes
from pipelines.data.annotations import (
    BOX_CONTEXT,
    JOINTS_CONTEXT,
    LABELLED,
    MAX_PX,
    MIN_HEAD_SIZE,
    MIN_SIDE,
    MISSING,
    OCCLUDED,
    Annotated,
    Person,
)
from pipelines.data.readers import coco_file, coco_pictures, coco_skeleton, files
from pipelines.data.readers.coco_pictures import Instance

FILES = ("annotations.json", "annotations/person_keypoints_default.json", "result.json")

VALIDATION_FRACTION = 0.1


def read(
    annotations: str,
    *,
    head: str,
    category: str = "",
    mirror_pairs: str = "",
    validation_annotations: str = "",
    validation_fraction: float | None = None,
    split_seed: int = 0,
    folders: tuple[str, str] = ("", ""),
    images: str = "",
    rescale: bool = False,
) -> Annotated:
    """Read every usable instance of one category of a COCO keypoint file.

    Joints: flag 0 is MISSING (its position means nothing), 1 OCCLUDED, 2 LABELLED. One
    at exactly (0, 0) is MISSING whatever its flag: tools write absent ones so. Names and limbs
    come from the category. The crop is centred on ``bbox`` and ``BOX_CONTEXT`` times as wide as its
    longer side; without a ``bbox``, with one of no size, or where every ``bbox`` copies the joints'
    extent, on the box of the joints that are not
    MISSING and ``JOINTS_CONTEXT`` times as wide. Ids are ``image#annotation id``. Rows go by image
    name, then annotation id; the order in the file changes nothing.

    Left out, by reason: crowds (``iscrowd``), instances without keypoints or with all of them
    MISSING, with a box of no size or outside the picture, annotations with an ``image_id`` that is
    not in ``images``, those of another category, and those in pictures of another size than
    annotated.

    Args:
      annotations: the JSON file, plain or gzip, local or gs://.
      head: the unit of PCKh: "joint:A,joint:B", the distance of two joints (unknown where one of
        them is MISSING), or "box:F", F times the longer side of the box.
      category: name of the one to take; may be "" when only one has keypoints.
      mirror_pairs: "A:B,C:D", joints that change places in a mirrored picture; "A:A" stays.
        Joints that are not in it follow their names (``hourglass.skeleton.side``).
      validation_annotations: a second file; all its instances are for validation.
      validation_fraction: of the pictures, when there is no second file; None is
        ``VALIDATION_FRACTION``. All instances of one picture are in one split, see ``held_out``.
      split_seed: of that choice.
      folders: put before the image names of the two files, see ``shared_root``.
      images: folder of the pictures: their sizes are compared with the annotated ones, see
        ``pipelines.data.picture_sizes``; "" believes the annotations.
      rescale: move positions to pictures of another size than annotated.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file that is empty or not of this format, a category or joint that is not there,
        no category or head rule chosen where one must be, an annotation with keypoints that are
        not three numbers for each joint, or a value that cannot be used; names file and annotation.
    """
    parts = _parse(annotations, validation_annotations, category, folders, images)
    skeleton = coco_skeleton.skeleton_of(parts[0], mirror_pairs)
    head_size_of, rule = _head(head, skeleton, annotations)
    left_out: dict[str, list[str]] = collections.defaultdict(list)
    by_file = [_instances(part, left_out) for part in parts]
    fits = coco_pictures.compare(images, [one for part in by_file for one in part], rescale)
    by_file = [coco_pictures.fitting(part, fits, left_out) for part in by_file]
    validation = _validation_images(by_file, validation_fraction, split_seed)
    instances = _in_order([instance for part in by_file for instance in part])
    instances, copied = coco_pictures.without_copied_boxes(instances)
    people = _people(instances, validation, head_size_of)
    if people and not any(math.isfinite(person.head_size) for person in people):
        raise ValueError(f"--head={head}: none in {annotations} has both joints; choose others")
    return Annotated(
        name=f"coco {parts[0].category}",
        skeleton=skeleton,
        people=people,
        left_out=dict(left_out),
        head_rule=rule,
        origin=0,
        sources=tuple(part.path for part in parts),
        settings={"coco": _settings(parts[-1], skeleton, instances)},
        upright={name: fit.upright for name, fit in fits.items() if fit.upright is not None},
        notes=(
            *(note for part in parts for note in part.notes),
            *coco_skeleton.notes(skeleton, mirror_pairs),
            *picture_sizes.notes(fits),
            *coco_pictures.notes(instances),
            *copied,
        ),
    )


def _parse(
    annotations: str,
    validation_annotations: str,
    category: str,
    folders: tuple[str, str],
    images: str,
) -> list[coco_file.File]:
    """One file, or two with the same joints."""
    roots = [os.path.join(images, folder) if images else "" for folder in folders]
    train = coco_file.parse(annotations, category, folders[0], roots[0])
    if not validation_annotations:
        return [train]
    validation = coco_file.parse(
        validation_annotations, category or train.category, folders[1], roots[1]
    )
    if train.joints != validation.joints:
        raise ValueError(
            f"{validation.path} names the joints {validation.joints}, {train.path} {train.joints}; "
            "both must have the same in the same order"
        )
    return [train, validation]


def _validation_images(
    by_file: list[list[Instance]], fraction: float | None, seed: int
) -> set[str]:
    """All images of the second file, or a choice among those of the only one."""
    images, *second = ({instance.image for instance in part} for part in by_file)
    if not second:
        return held_out(images, VALIDATION_FRACTION if fraction is None else fraction, seed)
    if fraction is not None:
        raise ValueError("give a validation file or a fraction, not both")
    (validation,) = second
    _check_apart(images & validation)
    return validation


def held_out(images: set[str], fraction: float, seed: int) -> set[str]:
    """Choose the pictures for validation: those with the lowest seeded hashes of their names.

    The choice depends on the names alone, not on their order. At least one is chosen and one left
    when there are two or more, unless ``fraction`` is 0.

    Raises ValueError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the validation fraction is {fraction}; it must be 0 or more and below 1")
    count = round(fraction * len(images))
    if fraction:
        count = min(max(count, 1), len(images) - 1)
    return set(sorted(images, key=lambda name: _hash(f"{seed} {name}"))[:count])


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def shared_root(images: str, validation_images: str) -> tuple[str, tuple[str, str]]:
    """Return the folder that holds two images folders, and their paths in it for ``read``.

    Raises ValueError when they have none in common, as a local and a gs:// folder.
    """
    first, second = (_absolute(path).split("/") for path in (images, validation_images))
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    if not same:
        raise ValueError(
            f"{images} and {validation_images} have no folder in common; put both on one drive or "
            "into one bucket"
        )
    return "/".join(first[:same]) or "/", ("/".join(first[same:]), "/".join(second[same:]))


def _absolute(path: str) -> str:
    # Not os.path.normpath for gs://, which would lose a slash.
    return path.rstrip("/") if "://" in path else os.path.abspath(path)


def describe(annotated: Annotated) -> str:
    """Lines for a user to check: joints, mirror pairs, boxes and heads as they were read."""
    names, mirror = annotated.skeleton.joints, annotated.skeleton.mirror
    pairs = [f"{names[a]}:{names[b]}" for a, b in enumerate(mirror) if a < b]
    single = [names[a] for a, b in enumerate(mirror) if a == b]
    unknown = sum(math.isnan(person.head_size) for person in annotated.people)
    total, boxless = len(annotated.people), annotated.settings["coco"]["boxes_from_joints"]
    lines = [
        f"{annotated.name}: {len(names)} joints, {len(annotated.skeleton.limbs)} limbs",
        f"mirror pairs: {', '.join(pairs) or 'none'}",
        f"their own mirror image: {', '.join(single) or 'none'}",
        f"head size: {annotated.head_rule}; unknown for {unknown:,} of {total:,}",
    ]
    if boxless:
        lines.append(f"{boxless:,} of {total:,} have no bbox: cropped by the box of their joints")
    return "\n".join(lines)


def _check_apart(both: set[str]) -> None:
    if not both:
        return
    names = ", ".join(sorted(both)[:5]) + (", ..." if len(both) > 5 else "")
    raise ValueError(
        f"{len(both)} pictures are in both annotation files: {names}. Validation pictures must not "
        "be trained on: remove them from one, or give --validation_images if they are other "
        "pictures of the same name"
    )


# ---- head size


def _head(text: str, skeleton: Skeleton, path: str) -> tuple[typing.Callable, str]:
    """Return the function of an instance that returns its head size, and the rule in words."""
    box = re.fullmatch(r"box:([0-9.eE+-]+)", text)
    two = re.fullmatch(r"joint:(.+),\s*joint:(.+)", text)
    if box and 0 < _number(box[1]) <= 1:
        fraction = _number(box[1])
        rule = f"{fraction:g} x the longer side of the bbox (or of the joints' box where none is)"
        return lambda instance: fraction * float(instance.box[2:].max()), rule
    if two and two[1] != two[2] and {two[1], two[2]} <= set(skeleton.joints):
        ends = [skeleton.index(two[1]), skeleton.index(two[2])]
        rule = f"|{two[1]} - {two[2]}|; those without both are not scored by PCKh"
        return lambda instance: _distance(instance, ends), rule
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


def _distance(instance: Instance, ends: list[int]) -> float:
    if (instance.state[ends] == MISSING).any():
        return math.nan
    length = float(np.linalg.norm(instance.joints[ends[0]] - instance.joints[ends[1]]))
    return length if length >= MIN_HEAD_SIZE else math.nan


# ---- annotations -> people


def _instances(part: coco_file.File, left_out: dict[str, list[str]]) -> list[Instance]:
    """Every usable instance of a file; ids of the others go to ``left_out``, by reason."""
    instances = []
    for number, entry in _numbered(part).items():
        key = coco_file.id_of(entry, "image_id", f"{part.path}, annotation {number}")
        image = part.images.get(key)
        name = f"{part.folder}/{image['file_name']}".lstrip("/") if image else ""
        result = _unusable(part, entry, image) or _instance(part, entry, image, name, number)
        if isinstance(result, str):
            left_out[result].append(f"{name or f'image {key}'}#{number}")
        else:
            instances.append(result)
    return instances


def _numbered(part: coco_file.File) -> dict[int | str, dict]:
    """Id -> annotation; ValueError for an id twice."""
    numbered = {}
    for index, entry in enumerate(part.annotations):
        number = coco_file.id_of(entry, "id", f"{part.path}, annotation at index {index}")
        if number in numbered:
            raise ValueError(f"{part.path}: the annotation id {number} occurs twice; renumber them")
        numbered[number] = entry
    return numbered


def _unusable(part: coco_file.File, entry: dict, image: dict | None) -> str | None:
    if entry.get("category_id") != part.category_id:
        return "of another category"
    if image is None:
        return "image_id not in images"
    if entry.get("iscrowd"):
        return "crowd (iscrowd)"
    return "no keypoints" if files.is_empty(entry.get("keypoints")) else None


def _instance(
    part: coco_file.File, entry: dict, image: dict, name: str, number: int | str
) -> Instance | str:
    """Return an instance, or the reason to leave it out."""
    where = f"{part.path}, annotation {number}"
    joints, state, absent = _joints(part, entry, where)
    if not state.any():
        return "no labelled joint"
    given = files.numbers(entry, "bbox", (4,), where, optional=True)
    if given is not None and (given[2:] < 0).any():
        return "box of negative size"
    boxed = given is not None and bool((given[2:] > 0).all())
    box = given if boxed else cropping.box_around(joints[state != MISSING])
    if box[2:].max() < MIN_SIDE:
        return "box without size"
    size = coco_file.size(image, f"{part.path}, image {files.short(entry['image_id'])}")
    return Instance(name, entry["image_id"], number, joints, state, box, boxed, size, absent)


def _joints(part: coco_file.File, entry: dict, where: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return joints [J, 2] image px, state [J], and how many labelled ones at (0, 0) are absent."""
    values, count = entry["keypoints"], len(part.joints)
    if not isinstance(values, list) or len(values) != 3 * count:
        has = f"{len(values) / 3:g} joints" if isinstance(values, list) else files.short(values)
        raise ValueError(
            f'{where}: "keypoints" has {has} (x, y, v of each), the category '
            f"{part.category!r} names {count}; correct the file"
        )
    try:
        table = np.array(values, np.float64).reshape(count, 3)
    except (TypeError, ValueError, OverflowError):
        table = np.full((count, 3), np.nan)
    absent = (table[:, :2] == 0).all(axis=1) & np.isin(table[:, 2], (OCCLUDED, LABELLED))
    table[absent, 2] = MISSING
    flag, used = table[:, 2], table[:, 2] != MISSING
    if not (np.isin(flag, (0, 1, 2)).all() and (np.abs(table[used]) <= MAX_PX).all()):
        raise ValueError(
            f'{where}: "keypoints" must be finite numbers x, y of at most {MAX_PX:g} and a flag '
            f"0 (missing), 1 (occluded) or 2 (visible), not {files.short(values)}"
        )
    joints = np.where(used[:, None], table[:, :2], 0.0)
    return joints, flag.astype(np.uint8), int(absent.sum())


def _in_order(instances: list[Instance]) -> list[Instance]:
    """By image, then annotation id: numbers by value."""
    return sorted(instances, key=lambda one: (one.image, len(str(one.number)), str(one.number)))


def _people(
    instances: list[Instance], validation: set[str], head_size_of: typing.Callable
) -> tuple[Person, ...]:
    people, rows = [], collections.Counter()
    for one in instances:
        split = "validation" if one.image in validation else "train"
        center, side = cropping.square(one.box, BOX_CONTEXT if one.boxed else JOINTS_CONTEXT)
        people.append(
            Person(
                id=f"{one.image}#{one.number}",
                image=one.image,
                split=split,
                row=rows[split],
                center=center,
                side=side,
                joints=one.joints,
                state=one.state,
                head_size=head_size_of(one),
            )
        )
        rows[split] += 1
    return tuple(people)


def _settings(part: coco_file.File, skeleton: Skeleton, instances: list[Instance]) -> dict:
    """Return what dataset.json keeps: what COCO's result format needs, and the choices made.

    Results are compared with the validation file, so ``part`` is that one where there are two.
    """
    parts = skeleton.to_parts()
    return {
        "category": part.category,
        "category_id": part.category_id,
        "mirror_pairs": parts["mirror_pairs"],
        "limbs": parts["limbs"],
        "boxes_from_joints": sum(not one.boxed for one in instances),
        "image_ids": {one.image: one.image_id for one in instances},
    }
