"""Do predictions belong to this truth, person by person? If not: an error and no number."""

from __future__ import annotations

import numpy as np

from hourglass import metrics
from pipelines.data.annotations import MISSING
from pipelines.evaluation import scoring
from pipelines.evaluation.ground_truth import Truth

# Head sizes. On the published files 1 % of people have a larger median error; 90 % when the rows
# are shuffled, and 84 % when they are moved by one.
_GROSS = 2.0

# How many people's gross misses are looked at: 100 take half a second.
_LOOKED_AT = 100


def check(ids: tuple[str, ...] | None, found: np.ndarray, truth: Truth) -> None:
    """Refuse predictions that do not belong to this truth, person by person.

    Args:
      ids: the predictions' keys, or None.
      found: [., J, 2] 0-based image px.
      truth: joints as in ``found``.

    Raises:
      ValueError: other people, another order, or a number that is not finite.
    """
    people = len(truth.state)
    if len(found) == 0:
        raise ValueError("the prediction file holds 0 people; predict the split first")
    if ids is not None and truth.ids is not None:
        _check_keys(ids, truth.ids)
    if len(found) != people:
        raise ValueError(
            f"{len(found)} people are predicted, but the {truth.split} split of {truth.name} has "
            f"{people} ({truth.left_out} of the file were left out); predict each of them once"
        )
    _check_finite(found, truth)
    if ids is None or truth.ids is None:
        _check_order(found, truth)


def _check_keys(ids: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if ids == wanted:
        return
    absent, strange = sorted(set(wanted) - set(ids)), sorted(set(ids) - set(wanted))
    if absent or strange:
        raise ValueError(
            f"other people than in the truth: {len(absent)} of {len(wanted)} are not predicted "
            f"({', '.join(absent[:3]) or 'none'}), {len(strange)} are not in the truth "
            f"({', '.join(strange[:3]) or 'none'})"
        )
    row = next(row for row, pair in enumerate(zip(ids, wanted)) if pair[0] != pair[1])
    raise ValueError(
        f"the people are the truth's, in another order: row {row} is {ids[row]}, the truth's is "
        f"{wanted[row]}; write the rows in the published order"
    )


def _check_finite(found: np.ndarray, truth: Truth) -> None:
    bad = np.argwhere(~np.isfinite(found).all(-1))
    if len(bad):
        row, joint = bad[0]
        raise ValueError(
            f"{len(bad)} predicted positions are not finite, the first is row {row}, "
            f"{truth.skeleton.joints[joint]}: {found[row, joint].tolist()}; a network that answers "
            "NaN has no score"
        )


def _check_order(found: np.ndarray, truth: Truth) -> None:
    """Refuse rows of a keyless array that are evidently not in the truth's order."""
    typical = _typical(scoring.errors(found, truth.joints, truth))
    gross = np.flatnonzero(typical > _GROSS)
    why = ""
    if 2 * len(gross) > (~np.isnan(typical)).sum():
        why = (
            f"{len(gross)} of {len(found)} people are typically more than {_GROSS:g} head sizes off"
        )
    elif truth.ids is not None:
        why = _someone_elses(found, truth, gross[:_LOOKED_AT])
    if why:
        raise ValueError(
            f"the order, or the coordinates, seem to be different from the truth's: {why}; rows "
            f"must be in the published order, positions in image px from {truth.origin}"
        )


def _typical(distances: np.ndarray) -> np.ndarray:
    """Median over the scored joints, [..., J] -> [...]; NaN where none is."""
    known = ~np.isnan(distances)
    middle = np.where(known, distances, np.inf)
    middle.sort(-1)
    index = np.maximum(known.sum(-1, keepdims=True) - 1, 0) // 2
    return np.where(known.any(-1), np.take_along_axis(middle, index, -1)[..., 0], np.nan)


def _someone_elses(found: np.ndarray, truth: Truth, gross: np.ndarray) -> str:
    """Say how many of the people ``gross`` lie on a person of another photograph, if it is many.

    A network may take a neighbour in the photograph for the person; nothing but another order
    puts its joints where somebody in another photograph has them. On the published files that
    happens to at most 1 of 13 by chance.
    """
    images = np.array(truth.images)
    elsewhere = 0
    for row in gross:
        size = np.minimum(truth.head_size, truth.head_size[row])
        there = np.broadcast_to(found[row], found.shape)
        distances = metrics.normalized_errors(there, truth.joints, size)
        typical = _typical(np.where(truth.state != MISSING, distances, np.nan))
        elsewhere += bool((typical[images != images[row]] <= 0.5).any())
    if elsewhere < 2 or 3 * elsewhere < len(gross):
        return ""
    return f"{elsewhere} of {len(gross)} gross misses fit a person of another photograph"
