"""Joints, limbs and mirror pairs of a COCO category."""

from __future__ import annotations

from hourglass.skeleton import Skeleton
from pipelines.data.readers import coco_file


def skeleton_of(part: coco_file.File, mirror_pairs: str) -> Skeleton:
    """Return the skeleton of a file's joints and limbs; ``mirror_pairs`` as in ``coco.read``.

    Raises ValueError when pairs neither follow from the names nor are given.
    """
    stated = _stated_pairs(part, mirror_pairs)
    rest = tuple(name for name in part.joints if name not in stated)
    try:
        mirror = Skeleton(rest).mirror if rest else ()
        pairs = [(rest[a], rest[b]) for a, b in enumerate(mirror) if a < b]
        pairs += [(a, b) for a, b in stated.items() if a < b]
        indices = sorted(tuple(sorted(map(part.joints.index, pair))) for pair in pairs)
        return Skeleton(part.joints, tuple(indices), part.limbs or None)
    except ValueError as error:
        raise ValueError(
            f"{part.path}: {error}. Give pairs that do not follow from the names with "
            "--mirror_pairs=A:B,C:D; A:A is a joint without a counterpart"
        ) from error


def notes(skeleton: Skeleton, mirror_pairs: str) -> list[str]:
    """Return a warning where nothing was said of mirror pairs and names tell none."""
    if mirror_pairs or any(a != b for a, b in enumerate(skeleton.mirror)):
        return []
    return [
        "no joint has a mirror pair: if some are left and right, give them with "
        "--mirror_pairs=A:B,C:D, or mirrored pictures are trained on with wrong labels"
    ]


def _stated_pairs(part: coco_file.File, text: str) -> dict[str, str]:
    """Joint -> its mirror image in ``text``, in both directions."""
    stated = {}
    for pair in filter(None, (piece.strip() for piece in text.split(","))):
        ends = [end.strip() for end in pair.split(":")]
        unknown = [end for end in ends if end not in part.joints]
        if len(ends) != 2 or unknown:
            raise ValueError(
                f"--mirror_pairs: {pair!r} is not A:B of two joints; they are "
                f"{', '.join(part.joints)}"
            )
        if set(ends) & set(stated):
            raise ValueError(f"--mirror_pairs: {pair!r} names a joint that another pair has")
        stated.update({ends[0]: ends[1], ends[1]: ends[0]})
    return stated
