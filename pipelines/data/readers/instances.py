"""Instances of one kind with joints and a box, whatever file they are from -> people."""

from __future__ import annotations

import collections
import math
import typing

import numpy as np

from hourglass.skeleton import Skeleton
from pipelines.data import cropping, picture_sizes
from pipelines.data.annotations import (
    BOX_CONTEXT,
    JOINTS_CONTEXT,
    MIN_SIDE,
    MISSING,
    Annotated,
    Person,
)
from pipelines.data.picture_sizes import Fit
from pipelines.data.readers import head_sizes, skeletons, splits

NO_JOINT = "no labelled joint"


class Instance(typing.NamedTuple):
    """One usable annotation: joints [J, 2] image px, state [J], box [4] px.

    ``image``: its picture, relative to the images folder; ``image_id``: as its file names it.
    ``number``: unique in its picture. ``boxed``: whether ``box`` was annotated. ``size``: the
    picture's annotated width and height, px, where known.
    ``absent``: how many joints are flagged as labelled at (0, 0) and taken as MISSING.
    """

    image: str
    image_id: int | str
    number: int | str
    joints: np.ndarray
    state: np.ndarray
    box: np.ndarray
    boxed: bool
    size: tuple[int, int] | None
    absent: int


class Gathered(typing.NamedTuple):
    """Instances in order, the same as people, the head rule in words, sentences for the user."""

    instances: list[Instance]
    people: tuple[Person, ...]
    head_rule: str
    notes: tuple[str, ...]


def instance(
    image: str,
    image_id: int | str,
    number: int | str,
    joints: np.ndarray,
    state: np.ndarray,
    given: np.ndarray | None,
    size: tuple[int, int] | None,
    absent: int = 0,
) -> Instance | str:
    """Return an instance, or the reason to leave it out; ``given``: its annotated box, if any.

    Without one, or with one of no size, the box is that of the joints that are not MISSING.
    """
    if not state.any():
        return NO_JOINT
    if given is not None and (given[2:] < 0).any():
        return "box of negative size"
    boxed = given is not None and bool((given[2:] > 0).all())
    box = given if boxed else cropping.box_around(joints[state != MISSING])
    if box[2:].max() < MIN_SIDE:
        return "box without size"
    return Instance(image, image_id, number, joints, state, box, boxed, size, absent)


def gather(
    parts: list[list[Instance]],
    fits: dict[str, Fit],
    left_out: dict[str, list[str]],
    *,
    skeleton: Skeleton,
    head: str,
    path: str,
    validation_fraction: float | None,
    split_seed: int,
) -> Gathered:
    """Make people of all instances that lie in their pictures.

    The crop is centred on the box and ``BOX_CONTEXT`` times as wide as its longer side; without
    an annotated box, or where every one copies the joints' extent, ``JOINTS_CONTEXT`` times as wide
    as the joints' box. Ids are ``image#number``. Rows go by image name, then number.

    Args:
      parts: instances to train on and, where there are any, those to validate on.
      fits: image -> its real size, see ``picture_sizes``.
      left_out: reason -> ids; grows.
      skeleton: the joints.
      head: see ``head_sizes.rule_of``.
      path: of the annotations, for errors.
      validation_fraction: see ``splits.validation_images``.
      split_seed: of that choice.

    Raises ValueError for a head rule that is invalid or fits no instance, and as ``splits`` does.
    """
    head_size_of, rule = head_sizes.rule_of(head, skeleton, path)
    parts = [_fitting(part, fits, left_out) for part in parts]
    images = [{one.image for one in part} for part in parts]
    validation = splits.validation_images(images, validation_fraction, split_seed)
    instances, copied = _without_copied_boxes(_in_order([one for part in parts for one in part]))
    people = _people(instances, validation, head_size_of)
    if people and not any(math.isfinite(person.head_size) for person in people):
        raise ValueError(f"--head={head}: none in {path} has both joints; choose others")
    notes = (*picture_sizes.notes(fits), *_notes(instances), *copied)
    return Gathered(instances, people, rule, notes)


def annotated(
    gathered: Gathered,
    fits: dict[str, Fit],
    left_out: dict[str, list[str]],
    *,
    name: str,
    skeleton: Skeleton,
    sources: tuple[str, ...],
    settings: dict,
    notes: tuple[str, ...],
    mirror_pairs: str,
) -> Annotated:
    """A reader's result from what ``gather`` made, with the reader's ``notes`` first."""
    return Annotated(
        name=name,
        skeleton=skeleton,
        people=gathered.people,
        left_out={reason: names for reason, names in left_out.items() if names},
        head_rule=gathered.head_rule,
        origin=0,
        sources=sources,
        settings=settings,
        upright={image: fit.upright for image, fit in fits.items() if fit.upright is not None},
        notes=(*notes, *skeletons.notes(skeleton, mirror_pairs), *gathered.notes),
    )


def settings(category: str, skeleton: Skeleton, instances: list[Instance]) -> dict:
    """Return what dataset.json keeps of the choices made: other ones make other records."""
    parts = skeleton.to_parts()
    return {
        "category": category,
        "mirror_pairs": parts["mirror_pairs"],
        "limbs": parts["limbs"],
        "boxes_from_joints": sum(not one.boxed for one in instances),
    }


def describe(annotated: Annotated) -> str:
    """Lines for a user to check: joints, mirror pairs, boxes and heads as they were read."""
    names, mirror = annotated.skeleton.joints, annotated.skeleton.mirror
    pairs = [f"{names[a]}:{names[b]}" for a, b in enumerate(mirror) if a < b]
    single = [names[a] for a, b in enumerate(mirror) if a == b]
    unknown = sum(math.isnan(person.head_size) for person in annotated.people)
    (choices,) = annotated.settings.values()
    total, boxless = len(annotated.people), choices["boxes_from_joints"]
    lines = [
        f"{annotated.name}: {len(names)} joints, {len(annotated.skeleton.limbs)} limbs",
        f"mirror pairs: {', '.join(pairs) or 'none'}",
        f"their own mirror image: {', '.join(single) or 'none'}",
        f"head size: {annotated.head_rule}; unknown for {unknown:,} of {total:,}",
    ]
    if boxless:
        lines.append(f"{boxless:,} of {total:,} have no bbox: cropped by the box of their joints")
    return "\n".join(lines)


# ---- instances and the pictures that they are of


def compare(
    images: str, instances: list[Instance], rescale: bool, shown: bool = False
) -> dict[str, Fit]:
    """Image name -> its real size compared with the annotated one, of pictures with both.

    ``rescale`` and ``shown`` as in ``picture_sizes.compare``.
    """
    if not images:
        return {}
    points = collections.defaultdict(list)
    for one in instances:
        points[one.image].append(one.joints[one.state != MISSING])
    sizes = {one.image: one.size for one in instances if one.size}
    joined = {name: np.concatenate(parts) for name, parts in points.items()}
    return picture_sizes.compare(images, sizes, joined, rescale, shown)


def _fitting(
    instances: list[Instance], fits: dict[str, Fit], left_out: dict[str, list[str]]
) -> list[Instance]:
    """Return the instances inside pictures of the right size, rescaled where that was chosen."""
    kept = []
    for one in instances:
        fit, key = fits.get(one.image), f"{one.image}#{one.number}"
        scaled = _scaled(one, fit.scale) if fit else one
        size = fit.real if fit else one.size
        if fit and fit.kind == picture_sizes.DIFFERENT:
            left_out["picture of another size than annotated"].append(f"{key}: {one.image} {fit}")
        elif size and cropping.is_outside(scaled.box, *size):
            left_out["box outside the picture"].append(key)
        else:
            kept.append(scaled)
    return kept


def _scaled(one: Instance, scale: tuple[float, float]) -> Instance:
    if scale == (1.0, 1.0):
        return one
    joints = (one.joints + 0.5) * scale - 0.5
    return one._replace(
        joints=np.where(one.state[:, None] == MISSING, 0.0, joints), box=one.box * (scale * 2)
    )


def _without_copied_boxes(instances: list[Instance]) -> tuple[list[Instance], list[str]]:
    """Replace boxes by none where every one just copies its joints' extent; with a note.

    Such a box ends at ankles and wrists, so it needs the wider crop of instances without a box.
    """
    boxed = [one for one in instances if one.boxed]
    if not boxed or not all(map(_is_copied, boxed)):
        return instances, []
    note = (
        f"the bbox of all {len(boxed):,} annotations is just the box of their joints: cropped as "
        "without a bbox"
    )
    return [_unboxed(one) for one in instances], [note]


def _is_copied(one: Instance) -> bool:
    joints = one.joints[one.state != MISSING]
    corners = np.concatenate([one.box[:2], one.box[:2] + one.box[2:]])
    return bool(np.abs(corners - [*joints.min(axis=0), *joints.max(axis=0)]).max() <= 1)


def _unboxed(one: Instance) -> Instance:
    box = cropping.box_around(one.joints[one.state != MISSING])
    return one._replace(box=box, boxed=False)


def _notes(instances: list[Instance]) -> list[str]:
    """Return sentences on what is unusual in the annotations."""
    absent = [one.absent for one in instances if one.absent]
    if not absent:
        return []
    return [
        f"{sum(absent):,} joints in {len(absent):,} of {len(instances):,} annotations are flagged "
        "as labelled at (0, 0), where tools write absent joints: they are taken as missing"
    ]


# ---- instances -> people


def _in_order(instances: list[Instance]) -> list[Instance]:
    """By image, then number: numbers by value."""
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
