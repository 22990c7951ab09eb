"""People, animals or things with keypoints in COCO's format, as CVAT and Label Studio export it.

What the format defines (https://cocodataset.org/#format-data): keypoints are "0-indexed" pixel
locations, so a whole number is a pixel's centre and nothing is added or taken off. Boxes are
``x, y, width, height`` from the picture's corner, that is from the first pixel's edge, half a
pixel before its centre. Limbs (``skeleton``) count joints from 1.
"""

from __future__ import annotations

import collections
import os

import numpy as np

from hourglass.skeleton import Skeleton
from pipelines.data.annotations import LABELLED, MAX_PX, MISSING, OCCLUDED, Annotated
from pipelines.data.readers import coco_file, files, instances, skeletons
from pipelines.data.readers.instances import Instance

FILES = ("annotations.json", "annotations/person_keypoints_default.json", "result.json")


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
    come from the category. Crops, ids and rows are those of ``instances.gather``, numbers those of
    the annotations; the order in the file changes nothing.

    Left out, by reason: crowds (``iscrowd``), instances without keypoints or with all of them
    MISSING, with a box of no size or outside the picture, annotations with an ``image_id`` that is
    not in ``images``, those of another category, and those in pictures of another size than
    annotated.

    Args:
      annotations: the JSON file, plain or gzip, local or gs://.
      head: the unit of PCKh, see ``head_sizes.rule_of``.
      category: name of the one to take; may be "" when only one has keypoints.
      mirror_pairs: see ``skeletons.skeleton_of``.
      validation_annotations: a second file; all its instances are for validation.
      validation_fraction: of the pictures, when there is no second file, see
        ``splits.validation_images``.
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
    joints, limbs = parts[0].joints, parts[0].limbs
    skeleton = skeletons.skeleton_of(joints, limbs, mirror_pairs, parts[0].path)
    left_out: dict[str, list[str]] = collections.defaultdict(list)
    by_file = [_instances(part, left_out) for part in parts]
    fits = instances.compare(images, [one for part in by_file for one in part], rescale)
    gathered = instances.gather(
        by_file,
        fits,
        left_out,
        skeleton=skeleton,
        head=head,
        path=annotations,
        validation_fraction=validation_fraction,
        split_seed=split_seed,
    )
    return instances.annotated(
        gathered,
        fits,
        left_out,
        name=f"coco {parts[0].category}",
        skeleton=skeleton,
        sources=tuple(part.path for part in parts),
        settings={"coco": _settings(parts[-1], skeleton, gathered.instances)},
        notes=(*(note for part in parts for note in part.notes),),
        mirror_pairs=mirror_pairs,
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


# ---- annotations -> instances


def _instances(part: coco_file.File, left_out: dict[str, list[str]]) -> list[Instance]:
    """Every usable instance of a file; ids of the others go to ``left_out``, by reason."""
    usable = []
    for number, entry in _numbered(part).items():
        key = coco_file.id_of(entry, "image_id", f"{part.path}, annotation {number}")
        image = part.images.get(key)
        name = f"{part.folder}/{image['file_name']}".lstrip("/") if image else ""
        result = _unusable(part, entry, image) or _instance(part, entry, image, name, number)
        if isinstance(result, str):
            left_out[result].append(f"{name or f'image {key}'}#{number}")
        else:
            usable.append(result)
    return usable


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
        return instances.NO_JOINT
    given = files.numbers(entry, "bbox", (4,), where, optional=True)
    size = coco_file.size(image, f"{part.path}, image {files.short(entry['image_id'])}")
    return instances.instance(name, entry["image_id"], number, joints, state, given, size, absent)


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


def _settings(part: coco_file.File, skeleton: Skeleton, found: list[Instance]) -> dict:
    """Return what dataset.json keeps: what COCO's result format needs, and the choices made.

    Results are compared with the validation file, so ``part`` is that one where there are two.
    """
    return {
        "category": part.category,
        "category_id": part.category_id,
        **instances.settings(part.category, skeleton, found),
        "image_ids": {one.image: one.image_id for one in found},
    }
