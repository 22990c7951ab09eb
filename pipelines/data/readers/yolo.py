"""YOLO-pose data sets, as Ultralytics reads and Roboflow, CVAT and others export them.

A data.yaml names folders or lists of pictures; each picture has a .txt file of labels, each label a
row: class, box centre x, y, width, height, then x, y or x, y, visibility of each joint, as shares
of the picture's width and height (https://docs.ultralytics.com/datasets/pose). Converters from COCO
divide pixels by width and height and nothing else, so here they are multiplied and nothing else.
The picture is the one that viewers show, turned by its EXIF orientation, as Ultralytics reads it.
"""

from __future__ import annotations

import collections
import os

import numpy as np

from pipelines.data import locate, picture_sizes
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED, Annotated
from pipelines.data.picture_sizes import Fit
from pipelines.data.readers import instances, yolo_files, yolo_yaml
from pipelines.data.readers.instances import Instance
from pipelines.data.readers.yolo_yaml import DataFile

FILES = ("data.yaml", "dataset.yaml")

# Joints may lie outside of the picture, as far as another picture's width.
_LEAST, _MOST = -1.0, 2.0


def read(
    annotations: str,
    *,
    head: str,
    category: str = "",
    joints: str = "",
    mirror_pairs: str = "",
    validation_fraction: float | None = None,
    split_seed: int = 0,
    images: str = "",
) -> Annotated:
    """Read every usable row of one class of a YOLO-pose data set.

    Joints: visibility 0 is MISSING, 1 OCCLUDED, 2 LABELLED; where no row has a 2, 1 is LABELLED.
    Without visibilities, a joint at (0, 0) or with a negative position is MISSING. At exactly
    (0, 0) it is MISSING whatever its visibility. Crops and rows as in ``instances.gather``; ids are
    ``image#line``, lines counted from 1.

    Left out, by reason: pictures that are missing, broken or without rows, labels without a
    picture, rows of another class, of another length than ``kpt_shape`` asks for, with anything but
    numbers, another visibility or positions that aren't shares of the picture, rows that repeat
    another, and those without a labelled joint or with a box of no size or outside the picture.

    Args:
      annotations: data.yaml, local or gs://.
      head: the unit of PCKh, see ``head_sizes.rule_of``.
      category: name of the class to take; may be "" when there is one only.
      joints: "A,B,C", names in the order of the rows; "": ``kpt_names``, or numbers.
      mirror_pairs: see ``skeletons.skeleton_of``; "": ``flip_idx``, or the names.
      validation_fraction: of the pictures, when data.yaml has no validation pictures, see
        ``splits.validation_images``.
      split_seed: of that choice.
      images: the data set's folder, outside of which nothing is read; "": data.yaml's.

    Raises:
      FileNotFoundError: data.yaml, or a folder or list that it names, is missing.
      ValueError: data.yaml cannot be used; names it, the key and the remedy.
    """
    root = images or os.path.dirname(annotations) or "."
    file = yolo_yaml.parse(annotations, category, joints)
    skeleton = yolo_yaml.skeleton_of(file, mirror_pairs)
    entries = [part for part in (file.train, file.validation) if part]
    parts, moved = zip(*(yolo_files.pictures(file, part, root) for part in entries))
    every = sorted(set().union(*parts))
    left_out: dict[str, list[str]] = collections.defaultdict(list)
    left_out["label file without a photograph"] += yolo_files.labels_without_picture(every, root)
    fits = picture_sizes.as_shown(root, every)
    by_part = [_instances(file, part, root, fits, left_out) for part in parts]
    by_part, promoted = _without_occlusion(by_part)
    gathered = instances.gather(
        by_part,
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
        name=f"yolo {file.category}",
        skeleton=skeleton,
        sources=(annotations,),
        settings={"yolo": instances.settings(file.category, skeleton, gathered.instances)},
        notes=(
            *file.notes,
            *(note for notes in moved for note in notes),
            *promoted,
        ),
        mirror_pairs=mirror_pairs,
    )


def _instances(
    file: DataFile,
    images: list[str],
    root: str,
    fits: dict[str, Fit],
    left_out: dict[str, list[str]],
) -> list[Instance]:
    """Every usable row of these pictures' labels; the others go to ``left_out``, by reason."""
    labels = {image: yolo_files.label_of(image) for image in images}
    there = locate.present(root, labels.values())
    usable = []
    for image, label in labels.items():
        if image not in fits:
            left_out["photograph missing or not readable"].append(image)
        elif label not in there:
            left_out["photograph without a label file"].append(image)
        else:
            path = os.path.join(root, label)
            usable += _of_picture(file, image, path, fits[image].real, left_out)
    return usable


def _of_picture(
    file: DataFile, image: str, label: str, size: tuple[int, int], left_out: dict[str, list[str]]
) -> list[Instance]:
    try:
        rows = [row.split() for row in yolo_files.rows(label)]
    except ValueError as error:
        left_out["label file that is not text"].append(f"{image}: {error}")
        return []
    if not any(rows):
        left_out["photograph without rows"].append(image)
    usable, seen = [], set()
    for line, words in enumerate(rows, 1):
        result = "row that repeats another" if tuple(words) in seen else ""
        result = result or _instance(file, words, image, line, size)
        seen.add(tuple(words))
        if words and isinstance(result, str):
            left_out[result].append(f"{image}#{line}")
        elif words:
            usable.append(result)
    return usable


def _instance(
    file: DataFile, words: list[str], image: str, line: int, size: tuple[int, int]
) -> Instance | str:
    """Return an instance, or the reason to leave it out; no words are one, too."""
    try:
        values = np.array(words, np.float64)
    except ValueError:
        values = np.array([np.nan])
    if not len(values) or not np.isfinite(values).all():
        return "row that is not numbers"
    if values[0] != file.number:
        return "of another category"
    if len(values) != 5 + len(file.joints) * file.dims:
        return "row of another length than kpt_shape asks for"
    table = values[5:].reshape(-1, file.dims)
    state, absent = _states(table)
    if state is None:
        return "visibility other than 0, 1 and 2"
    used = table[state != MISSING, :2]
    if (
        not (np.abs(values[1:5] - 0.5) <= 1.5).all()
        or (used < _LEAST).any()
        or (used > _MOST).any()
    ):
        return "positions that are not shares of the picture"
    joints = np.where(state[:, None] == MISSING, 0.0, table[:, :2] * size)
    corner = values[1:3] - values[3:5] / 2
    box = np.concatenate([corner * size, values[3:5] * size])
    return instances.instance(image, image, line, joints, state, box, size, absent)


def _states(table: np.ndarray) -> tuple[np.ndarray | None, int]:
    """State [J] of joints [J, 2 or 3], None for another visibility; how many at (0, 0) are absent.

    Without visibilities no joint at (0, 0) counts as absent: nothing said that it was there.
    """
    corner = (table[:, :2] == 0).all(axis=1)
    if table.shape[1] == 2:
        missing = corner | (table < 0).any(axis=1)
        return np.where(missing, MISSING, LABELLED).astype(np.uint8), 0
    flag = table[:, 2]
    if not np.isin(flag, (MISSING, OCCLUDED, LABELLED)).all():
        return None, 0
    absent = corner & (flag != MISSING)
    return np.where(absent, MISSING, flag).astype(np.uint8), int(absent.sum())


def _without_occlusion(
    by_part: list[list[Instance]],
) -> tuple[list[list[Instance]], list[str]]:
    """Take 1 as LABELLED where no joint of the data set has a 2, with a note."""
    states = [one.state for part in by_part for one in part]
    if not states or LABELLED in np.unique(states):
        return by_part, []
    labelled = [[one._replace(state=2 * one.state) for one in part] for part in by_part]
    return labelled, ["no joint has visibility 2: 1 is taken as visible, not as occluded"]
