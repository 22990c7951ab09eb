"""Folders of labelme's JSON files, one for each picture: points are joints, rectangles boxes.

Positions are used as they are written, as converters to COCO's format do. They refer to the picture
as its EXIF orientation turns it: labelme shows it so, and writes that size.
"""

from __future__ import annotations

import collections
import os
import posixpath

import numpy as np
import tensorflow as tf

from pipelines.data import locate
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED, Annotated
from pipelines.data.readers import instances, labelme_file, labelme_groups, skeletons
from pipelines.data.readers.instances import Instance
from pipelines.data.readers.labelme_file import POINT, RECTANGLE, Picture

FILES = (".",)  # the folder itself

# A joint so much rarer than the most frequent one may be a slip of the keyboard.
_RARE = 20


def read(
    annotations: str,
    *,
    head: str,
    category: str = "",
    joints: str = "",
    mirror_pairs: str = "",
    validation_annotations: str = "",
    validation_fraction: float | None = None,
    split_seed: int = 0,
    folders: tuple[str, str] = ("", ""),
    images: str = "",
    rescale: bool = False,
) -> Annotated:
    """Read every usable person, animal or thing of a folder of JSON files, with its subfolders.

    Points with one ``group_id`` are one person's, with the rectangle of that group as its box;
    points without one belong to the only rectangle that holds them; see ``labelme_groups.group``.
    A point is OCCLUDED where a flag that is set, or the description, is "occluded", "hidden",
    "invisible" or "not visible", or where X-AnyLabeling marks it as difficult; LABELLED otherwise.
    Joints without a point are MISSING. Crops and rows as in ``instances.gather``; ids are
    ``image#group 3``, ``image#shape 0`` (a rectangle without group) or ``image#all``.

    Left out, by reason: files that cannot be used or of another kind, other shapes than points and
    rectangles, points that belong to no group, people with a joint twice, of another category,
    without a labelled joint, with a box of no size or outside the picture, or in pictures of
    another size than annotated.

    Args:
      annotations: the folder, local or gs://, or one file.
      head: the unit of PCKh, see ``head_sizes.rule_of``.
      category: label of the rectangles to take; may be "" when all have the same.
      joints: "A,B,C", labels of the points to take, in that order; "": all, by the alphabet.
      mirror_pairs: see ``skeletons.skeleton_of``.
      validation_annotations: a second folder; all its people are for validation.
      validation_fraction: of the pictures, when there is no second folder, see
        ``splits.validation_images``.
      split_seed: of that choice.
      folders: put before the image names of the two folders, see ``coco.shared_root``.
      images: folder of the pictures, outside of which nothing is looked at; "": ``annotations``.
      rescale: move positions to pictures of another size than annotated.

    Raises:
      FileNotFoundError: a folder is missing, or holds no JSON file.
      ValueError: no points, a category or joint that is not there, two files for one picture, or
        no category or head rule chosen where one must be.
    """
    left_out: dict[str, list[str]] = collections.defaultdict(list)
    homes = [annotations, *([validation_annotations] if validation_annotations else [])]
    images = images or _folder(annotations)
    roots = [os.path.join(images, folder) for folder in folders]
    located = [_located(_parsed(home, left_out), root) for home, root in zip(homes, roots)]
    parts, moved = zip(*located)
    every = [picture for part in parts for picture in part.values()]
    category = _category(every, category, annotations)
    names = skeletons.named(joints) if joints else _names(every, annotations, left_out)
    skeleton = skeletons.skeleton_of(names, (), mirror_pairs, annotations)
    by_part = [
        _instances(part, folder, names, category, left_out) for part, folder in zip(parts, folders)
    ]
    flat = [one for part in by_part for one in part]
    fits = instances.compare(images, flat, rescale, shown=True)
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
        name=f"labelme {category}".strip(),
        skeleton=skeleton,
        sources=tuple(homes),
        settings={"labelme": instances.settings(category, skeleton, gathered.instances)},
        notes=(
            *(note for notes in moved for note in notes),
            *_rare_joints(flat, names),
            *_unknown_flags(every),
        ),
        mirror_pairs=mirror_pairs,
    )


def _folder(annotations: str) -> str:
    """Folder of the pictures where nothing else is said: that of the JSON files."""
    return annotations if tf.io.gfile.isdir(annotations) else os.path.dirname(annotations) or "."


def _parsed(home: str, left_out: dict[str, list[str]]) -> dict[str, Picture]:
    """JSON file -> its picture; files that cannot be used go to ``left_out``."""
    parsed = {}
    for path in _files(home):
        try:
            picture = labelme_file.parse(path)
        except ValueError as error:
            left_out["file that cannot be used"].append(str(error))
            continue
        if picture is None:
            left_out["JSON of another kind than labelme's"].append(path)
        else:
            parsed[path] = picture
    return parsed


def _files(home: str) -> list[str]:
    if not tf.io.gfile.isdir(home):
        if tf.io.gfile.exists(home):
            return [home]
        raise FileNotFoundError(f"there is no folder {home} of JSON files; check the path")
    paths = []
    for folder, _, entries in tf.io.gfile.walk(home):
        paths += [os.path.join(folder, name) for name in entries if name.endswith(".json")]
    if not paths:
        raise FileNotFoundError(f"there is no JSON file in {home}; name labelme's output folder")
    return sorted(paths)


def _located(parsed: dict[str, Picture], root: str) -> tuple[dict[str, Picture], tuple[str, ...]]:
    """Path of a picture in ``root`` -> the picture, and a note on those that lie elsewhere.

    ``imagePath`` is relative to the JSON file.
    """
    named, files_of = {}, {}
    for path, picture in parsed.items():
        relative = picture.name.replace("\\", "/")
        seen = locate.within(posixpath.join(os.path.dirname(path), relative), root)
        name = seen or relative
        if name in named:
            raise ValueError(
                f"{files_of[name]} and {path} are both of the picture {name}; keep one of them"
            )
        named[name], files_of[name] = picture, path
    paths = locate.locate(root, os.path.join(root, "."), named)
    return {paths[name]: picture for name, picture in named.items()}, locate.notes(paths)


def _category(pictures: list[Picture], category: str, path: str) -> str:
    shapes = (shape for picture in pictures for shape in picture.shapes)
    labels = sorted({shape.label for shape in shapes if shape.kind == RECTANGLE})
    if category and category not in labels:
        raise ValueError(
            f"{path}: no rectangle is labelled {category!r}, only {', '.join(labels) or 'none'}"
        )
    if not category and len(labels) > 1:
        raise ValueError(
            f"{path}: rectangles have several labels; choose --category= of {', '.join(labels)}"
        )
    return category or "".join(labels)


def _names(pictures: list[Picture], path: str, left_out: dict[str, list[str]]) -> tuple[str, ...]:
    shapes = (shape for picture in pictures for shape in picture.shapes)
    names = sorted({shape.label for shape in shapes if shape.kind == POINT})
    if not names:
        reasons = "".join(f"; {reason}: {who[0]}" for reason, who in left_out.items())
        raise ValueError(f"no JSON file in {path} has a point with a label{reasons}")
    return tuple(names)


def _instances(
    part: dict[str, Picture],
    folder: str,
    names: tuple[str, ...],
    category: str,
    left_out: dict[str, list[str]],
) -> list[Instance]:
    usable = []
    for path, picture in part.items():
        image = posixpath.join(folder, path)
        shapes, unknown = _of_joints(picture, names)
        groups, lost = labelme_groups.group(shapes, category)
        for reason, what in (*unknown, *lost):
            left_out[reason].append(f"{image}#{what}")
        if not picture.shapes:
            left_out["photograph without shapes"].append(image)
        for one in groups:
            result = _instance(image, one, names, picture.size)
            if isinstance(result, str):
                left_out[result].append(f"{image}#{one.key}")
            else:
                usable.append(result)
    return usable


def _of_joints(picture: Picture, names: tuple[str, ...]) -> tuple[tuple, list[tuple[str, str]]]:
    """Shapes without points of other labels, and those points as (reason, what)."""
    reason = "point with a label that is not in --joints"
    kept, unknown = [], []
    for one in picture.shapes:
        if one.kind == POINT and one.label not in names:
            unknown.append((reason, f"shape {one.index}: {one.label}"))
        else:
            kept.append(one)
    return tuple(kept), unknown


def _instance(
    image: str,
    group: labelme_groups.Group,
    names: tuple[str, ...],
    size: tuple[int, int] | None,
) -> Instance | str:
    joints = np.zeros((len(names), 2))
    state = np.full(len(names), MISSING, np.uint8)
    for point in group.points:
        j = names.index(point.label)
        joints[j], state[j] = point.points[0], OCCLUDED if point.occluded else LABELLED
    box = labelme_groups.box_of(group.rectangle)
    return instances.instance(image, image, group.key, joints, state, box, size)


def _rare_joints(found: list[Instance], names: tuple[str, ...]) -> list[str]:
    if not found:
        return []
    counts = np.sum([one.state != MISSING for one in found], axis=0)
    rare = [
        f"{name} ({count:,})" for name, count in zip(names, counts) if count * _RARE < max(counts)
    ]
    if not rare:
        return []
    return [
        f"labelled far less often than others (up to {max(counts):,}): {', '.join(rare)}; if that "
        "is a slip, correct the label, or name the joints to take with --joints=A,B,C"
    ]


def _unknown_flags(pictures: list[Picture]) -> list[str]:
    shapes = (shape for picture in pictures for shape in picture.shapes)
    flags = collections.Counter(flag for shape in shapes for flag in shape.flags)
    if not flags:
        return []
    listed = ", ".join(f"{flag} ({count:,})" for flag, count in flags.most_common(5))
    return [f"flags that change nothing: {listed}; occluded marks a joint as occluded"]
