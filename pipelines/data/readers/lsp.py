"""Leeds Sports Pose (2,000 people) and LSP-extended (10,000): one person per photograph."""

from __future__ import annotations

import numpy as np

from hourglass.skeleton import LSP
from pipelines.data import cropping
from pipelines.data.annotations import (
    JOINTS_CONTEXT,
    LABELLED,
    MAX_PX,
    MIN_HEAD_SIZE,
    MISSING,
    OCCLUDED,
    Annotated,
    Person,
)
from pipelines.data.readers import files

FILES = ("joints.mat",)

# With fewer joints the labels are too unsure for the head to be a unit of length.
SCORED_JOINTS = 10

_HEAD_RULE = (
    "|neck - head top|; people without both, or with fewer than "
    f"{SCORED_JOINTS} labelled joints, are not scored by PCKh"
)


def read(annotations: str, validation: int = 1000) -> Annotated:
    """Read every usable person of an LSP ``joints.mat``; its shape tells which of the two it is.

    LSP-extended is [14, 3, people]: flag 1 LABELLED, flag 0 MISSING (its x and y are meaningless);
    photographs ``im00001.jpg`` and on. LSP is [3, 14, people]: each joint has a position; flag 1 is
    OCCLUDED; photographs ``im0001.jpg`` and on. The last ``validation`` people are the validation
    split: for LSP 1,000 is the published one (its test set); LSP-extended has no published split.

    Positions are used as published. They are fractions of pixels and it is not documented
    whether the first pixel is 0 or 1; 0 is assumed. Some lie outside the photograph and stay.
    The crop is centred on the box of the joints that are not MISSING and ``JOINTS_CONTEXT`` times
    as wide as its longer side. Rows are indices in the split as published. Left out: people with
    fewer than two such joints, or with a box of no size.

    Args:
      annotations: ``joints.mat``, local or gs://; the photographs lie in ``images`` beside it.
      validation: how many people at the end are validation, from 0 to all.

    Raises FileNotFoundError when the file is missing; ValueError when it is empty, another kind of
    file, of another shape, with a flag other than 0 or 1 or a used position that is not finite
    (naming the person), or when it holds fewer than ``validation`` people.
    """
    joints, state, digits = _joints(annotations)
    if not 0 <= validation <= len(joints):
        raise ValueError(
            f"{validation} validation people were asked for, but {annotations} holds "
            f"{len(joints)}; choose 0 to {len(joints)}"
        )
    training = len(joints) - validation
    people, left_out = [], {}
    for number in range(len(joints)):
        split, row = ("train", number) if number < training else ("validation", number - training)
        image = f"im{number + 1:0{digits}d}.jpg"
        reason = _unusable(joints[number], state[number])
        if reason:
            left_out.setdefault(reason, []).append(f"{image}#1")
        else:
            people.append(_person(image, split, row, joints[number], state[number]))
    return Annotated(
        name="lsp",
        skeleton=LSP,
        people=tuple(people),
        left_out=left_out,
        head_rule=_HEAD_RULE,
        origin=0,
        sources=(annotations,),
    )


def _joints(path: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return joints [people, 14, 2] image px, state [people, 14] and digits in file names."""
    table = files.parse_mat(files.read_bytes(path), path).get("joints")
    shape = getattr(table, "shape", None)
    if shape is None or len(shape) != 3 or shape[:2] not in ((14, 3), (3, 14)) or not shape[2]:
        raise ValueError(
            f'{path} should hold "joints" of shape 14 x 3 x people (LSP-extended) or '
            f"3 x 14 x people (LSP), not {shape}"
        )
    if table.dtype.kind not in "fiu":
        raise ValueError(f'{path}: "joints" should be numbers, not {table.dtype}')
    extended = shape[:2] == (14, 3)
    table = table.transpose((2, 0, 1) if extended else (2, 1, 0)).astype(np.float64)
    position, flag = table[..., :2], table[..., 2]
    _check(path, ~np.isin(flag, (0, 1)), "a flag is neither 0 nor 1")
    state = np.where(flag == 1, *((LABELLED, MISSING) if extended else (OCCLUDED, LABELLED)))
    used = state != MISSING
    _check(path, used & ~np.isfinite(position).all(axis=2), "a position is not finite")
    far = f"a position lies beyond {MAX_PX:g} px"
    _check(path, used & (np.abs(position) > MAX_PX).any(axis=2), far)
    return np.where(used[..., None], position, 0.0), state.astype(np.uint8), 5 if extended else 4


def _check(path: str, bad: np.ndarray, rule: str) -> None:
    if bad.any():
        person, joint = np.argwhere(bad)[0]
        raise ValueError(f"{path}, person {person + 1}, {LSP.joints[joint]}: {rule}")


def _unusable(joints: np.ndarray, state: np.ndarray) -> str | None:
    labelled = joints[state != MISSING]
    if len(labelled) < 2:
        return "fewer than 2 labelled joints"
    return None if np.ptp(labelled, axis=0).max() > 0 else "labelled joints all at one position"


def _person(image: str, split: str, row: int, joints: np.ndarray, state: np.ndarray) -> Person:
    box = cropping.box_around(joints[state != MISSING])
    center, side = cropping.square(box, JOINTS_CONTEXT)
    return Person(
        id=f"{image}#1",
        image=image,
        split=split,
        row=row,
        center=center,
        side=side,
        joints=joints,
        state=state,
        head_size=_head_size(joints, state),
    )


def _head_size(joints: np.ndarray, state: np.ndarray) -> float:
    neck, top = LSP.index("neck"), LSP.index("head_top")
    length = float(np.linalg.norm(joints[neck] - joints[top]))
    enough = (state != MISSING).sum() >= SCORED_JOINTS
    known = state[neck] != MISSING and state[top] != MISSING and length >= MIN_HEAD_SIZE
    return length if enough and known else float("nan")
