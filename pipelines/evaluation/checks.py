"""Check that predictions belong to a ground truth, person by person, before they are scored."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipelines.evaluation import scoring
from pipelines.evaluation.ground_truth import Truth

# Head sizes. On the published files at most 1 % of people have a larger median error, but at least
# 88 % if the rows are shuffled, and at least 82 % if they are shifted by one.
_GROSS = 2.0

# People with gross misses to compare with everybody: 100 take half a second.
_MAX_COMPARED = 100


def check(ids: tuple[str, ...] | None, predicted: np.ndarray, truth: Truth) -> None:
    """Raise unless predictions belong to this truth, person by person.

    Args:
      ids: the predictions' keys, or None.
      predicted: [N, J, 2] 0-based image px.
      truth: with joints as in ``predicted``.

    Raises:
      ValueError: other people, another order, or a number that is not finite.
    """
    people = len(truth.state)
    if len(predicted) == 0:
        raise ValueError("the prediction file contains 0 people; predict the split first")
    if ids is not None and truth.ids is not None:
        _check_keys(ids, truth.ids)
    if len(predicted) != people:
        raise ValueError(
            f"{len(predicted)} people are predicted, but the {truth.split} split of {truth.name} "
            f"has {people} ({truth.left_out} of the file are left out); predict each of them once"
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
            f"({', '.join(unknown[:3]) or 'none'}); predict the same split of the same records"
        )
    row = next(row for row, pair in enumerate(zip(ids, wanted)) if pair[0] != pair[1])
    raise ValueError(
        f"the people are in another order than in the truth: row {row} is {ids[row]}, in the truth "
        f"{wanted[row]}; write the rows in the published order"
    )


def _check_finite(predicted: np.ndarray, truth: Truth) -> None:
    bad = np.argwhere(~np.isfinite(predicted).all(-1))
    if len(bad):
        row, joint = bad[0]
        raise ValueError(
            f"{len(bad)} predicted positions are not finite, the first is row {row}, "
            f"{truth.skeleton.joints[joint]}: {predicted[row, joint].tolist()}; a network that "
            "returns NaN has no score"
        )


def _check_order(predicted: np.ndarray, truth: Truth) -> None:
    """Raise for an array without keys if its rows are evidently not in the truth's order."""
    medians = _medians(predicted, truth)
    gross = np.flatnonzero(medians > _GROSS)
    reason = ""
    if 2 * len(gross) > (~np.isnan(medians)).sum():
        reason = (
            f"{len(gross)} of {len(predicted)} people have a median error of more than {_GROSS:g} "
            "head sizes"
        )
    elif truth.ids is not None:
        reason = _of_other_photographs(predicted, truth, gross[:_MAX_COMPARED])
    if reason:
        raise ValueError(
            f"the order or the coordinates seem to differ from the truth's: {reason}; rows must be "
            f"in the published order, positions in image px from {truth.origin}"
        )


def _medians(predicted: np.ndarray, truth: Truth) -> np.ndarray:
    """[N] median error of each person's scored joints, head sizes; NaN if none is scored."""
    return scoring.over_joints(np.nanmedian, scoring.errors(predicted, truth))


def _of_other_photographs(predicted: np.ndarray, truth: Truth, gross: np.ndarray) -> str:
    """Sentence if many of the people ``gross`` match a person of another photograph, else "".

    A network may predict a neighbour in the photograph instead of the person; but only another
    order makes predictions match people of another photograph. On the published files that happens
    by chance to at most 1 of 13.
    """
    images = np.array(truth.images)
    elsewhere = 0
    for row in gross:
        size = np.minimum(truth.head_size, truth.head_size[row])
        same = np.broadcast_to(predicted[row], predicted.shape)
        medians = _medians(same, dataclasses.replace(truth, head_size=size))
        elsewhere += bool((medians[images != images[row]] <= 0.5).any())
    if elsewhere < 2 or 3 * elsewhere < len(gross):
        return ""
    return f"{elsewhere} of {len(gross)} gross misses fit a person of another photograph"
