"""Whether predictions belong to a truth, person by person; if not: an error and no number."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipelines.evaluation import scoring
from pipelines.evaluation.ground_truth import Truth

# Head sizes. On the published files at most 1 % of people have a larger median error; 88 % and more
# when the rows are shuffled, and 82 % and more when they are moved by one.
_GROSS = 2.0

# People with gross misses who are compared with everybody: 100 take half a second.
_MAX_COMPARED = 100


def check(ids: tuple[str, ...] | None, predicted: np.ndarray, truth: Truth) -> None:
    """Raise unless predictions belong to this truth, person by person.

    Args:
      ids: the predictions' keys, or None.
      predicted: [., J, 2] 0-based image px.
      truth: joints as in ``predicted``.

    Raises:
      ValueError: other people, another order, or a number that is not finite.
    """
    people = len(truth.state)
    if len(predicted) == 0:
        raise ValueError("the prediction file holds 0 people; predict the split first")
    if ids is not None and truth.ids is not None:
        _check_keys(ids, truth.ids)
    if len(predicted) != people:
        raise ValueError(
            f"{len(predicted)} people are predicted, but the {truth.split} split of {truth.name} "
            f"has {people} ({truth.left_out} of the file were left out); predict each of them once"
        )
    _check_finite(predicted, truth)
    if ids is None or truth.ids is None:
        _check_order(predicted, truth)


def _check_keys(ids: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if ids == wanted:
        return
    missing, unknown = sorted(set(wanted) - set(ids)), sorted(set(ids) - set(wanted))
    if missing or unknown:
        raise ValueError(
            f"other people than in the truth: {len(missing)} of {len(wanted)} are not predicted "
            f"({', '.join(missing[:3]) or 'none'}), {len(unknown)} are not in the truth "
            f"({', '.join(unknown[:3]) or 'none'})"
        )
    row = next(row for row, pair in enumerate(zip(ids, wanted)) if pair[0] != pair[1])
    raise ValueError(
        f"the people are the truth's, in another order: row {row} is {ids[row]}, the truth's is "
        f"{wanted[row]}; write the rows in the published order"
    )


def _check_finite(predicted: np.ndarray, truth: Truth) -> None:
    bad = np.argwhere(~np.isfinite(predicted).all(-1))
    if len(bad):
        row, joint = bad[0]
        raise ValueError(
            f"{len(bad)} predicted positions are not finite, the first is row {row}, "
            f"{truth.skeleton.joints[joint]}: {predicted[row, joint].tolist()}; a network that "
            "answers NaN has no score"
        )


def _check_order(predicted: np.ndarray, truth: Truth) -> None:
    """Raise for rows of an array without keys that are evidently not in the truth's order."""
    typical = _typical(predicted, truth)
    gross = np.flatnonzero(typical > _GROSS)
    reason = ""
    if 2 * len(gross) > (~np.isnan(typical)).sum():
        reason = (
            f"{len(gross)} of {len(predicted)} people are typically more than {_GROSS:g} head "
            "sizes off"
        )
    elif truth.ids is not None:
        reason = _of_other_photographs(predicted, truth, gross[:_MAX_COMPARED])
    if reason:
        raise ValueError(
            f"the order, or the coordinates, seem to be different from the truth's: {reason}; rows "
            f"must be in the published order, positions in image px from {truth.origin}"
        )


def _typical(predicted: np.ndarray, truth: Truth) -> np.ndarray:
    """[N] median error of each person's scored joints, head sizes; NaN where none is scored."""
    return scoring.over_joints(np.nanmedian, scoring.errors(predicted, truth))


def _of_other_photographs(predicted: np.ndarray, truth: Truth, gross: np.ndarray) -> str:
    """How many of the people ``gross`` lie on a person of another photograph; "" if it is few.

    A network may take a neighbour in the photograph for the person; nothing but another order
    puts its joints where somebody in another photograph has them. On the published files that
    happens to at most 1 of 13 by chance.
    """
    images = np.array(truth.images)
    elsewhere = 0
    for row in gross:
        size = np.minimum(truth.head_size, truth.head_size[row])
        same = np.broadcast_to(predicted[row], predicted.shape)
        typical = _typical(same, dataclasses.replace(truth, head_size=size))
        elsewhere += bool((typical[images != images[row]] <= 0.5).any())
    if elsewhere < 2 or 3 * elsewhere < len(gross):
        return ""
    return f"{elsewhere} of {len(gross)} gross misses fit a person of another photograph"
