"""COCO's annotations and the pictures that they are of."""

from __future__ import annotations

import collections
import typing

import numpy as np

from pipelines.data import cropping, picture_sizes
from pipelines.data.annotations import MISSING
from pipelines.data.picture_sizes import Fit


class Instance(typing.NamedTuple):
    """One usable annotation: joints [J, 2] image px, box [4] px; its picture's annotated size.

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


def compare(images: str, instances: list[Instance], rescale: bool) -> dict[str, Fit]:
    """Image name -> its real size compared with the annotated one, of pictures with both."""
    if not images:
        return {}
    points = collections.defaultdict(list)
    for one in instances:
        points[one.image].append(one.joints[one.state != MISSING])
    sizes = {one.image: one.size for one in instances if one.size}
    joined = {name: np.concatenate(parts) for name, parts in points.items()}
    return picture_sizes.compare(images, sizes, joined, rescale)


def fitting(
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


def without_copied_boxes(instances: list[Instance]) -> tuple[list[Instance], list[str]]:
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


def notes(instances: list[Instance]) -> list[str]:
    """Return sentences on what is unusual in the annotations."""
    absent = [one.absent for one in instances if one.absent]
    if not absent:
        return []
    return [
        f"{sum(absent):,} joints in {len(absent):,} of {len(instances):,} annotations are flagged "
        "as labelled at (0, 0), where tools write absent joints: they are taken as missing"
    ]
