"""Joints, limbs and mirror pairs of annotations that name their own joints."""

from __future__ import annotations

from hourglass.skeleton import Skeleton


def skeleton_of(
    joints: tuple[str, ...], limbs: tuple[tuple[int, int], ...], mirror_pairs: str, path: str
) -> Skeleton:
    """Return the skeleton of these joints and limbs.

    Args:
      joints: J names.
      limbs: pairs of joint indices; none: those that the names tell.
      mirror_pairs: "A:B,C:D", joints that change places in a mirrored picture; "A:A" stays.
        Joints that are not in it follow their names (``hourglass.skeleton.side``).
      path: of the annotations, for errors.

    Raises ValueError when pairs neither follow from the names nor are given.
    """
    stated = _stated_pairs(joints, mirror_pairs)
    rest = tuple(name for name in joints if name not in stated)
    try:
        mirror = Skeleton(rest).mirror if rest else ()
        pairs = [(rest[a], rest[b]) for a, b in enumerate(mirror) if a < b]
        pairs += [(a, b) for a, b in stated.items() if a < b]
        indices = sorted(tuple(sorted(map(joints.index, pair))) for pair in pairs)
        return Skeleton(joints, tuple(indices), limbs or None)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}. Give pairs that do not follow from the names with "
            "--mirror_pairs=A:B,C:D; A:A is a joint without a counterpart"
        ) from error


def notes(skeleton: Skeleton, mirror_pairs: str) -> list[str]:
    """Return a warning where nothing was said of mirror pairs and there are none."""
    if mirror_pairs or any(a != b for a, b in enumerate(skeleton.mirror)):
        return []
    return [
        "no joint has a mirror pair: if some are left and right, give them with "
        "--mirror_pairs=A:B,C:D, or mirrored pictures are trained on with wrong labels"
    ]


def named(text: str) -> tuple[str, ...]:
    """Names of ``--joints=A,B,C``; ValueError where one is empty or occurs twice."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(f"--joints={text}: give different names, separated by commas")
    return names


def _stated_pairs(joints: tuple[str, ...], text: str) -> dict[str, str]:
    """Joint -> its mirror image in ``text``, in both directions."""
    stated = {}
    for pair in filter(None, (piece.strip() for piece in text.split(","))):
        ends = [end.strip() for end in pair.split(":")]
        unknown = [end for end in ends if end not in joints]
        if len(ends) != 2 or unknown:
            raise ValueError(
                f"--mirror_pairs: {pair!r} is not A:B of two joints; they are {', '.join(joints)}"
            )
        if set(ends) & set(stated):
            raise ValueError(f"--mirror_pairs: {pair!r} names a joint that another pair has")
        stated.update({ends[0]: ends[1], ends[1]: ends[0]})
    return stated
