"""PCKh: hits and counts per joint; every "mean" that the literature uses, defined once and named.

Three means are published as "PCKh@0.5" and differ by more than a point on the same predictions.
With h[j] hits among c[j] scored people of joint j, in percent:

- ``mean14``: mean of h[j] / c[j] over the joints other than pelvis and thorax (pytorch-pose);
- ``weighted14``: sum h[j] / sum c[j] over the same joints (HRNet, mmpose);
- ``pooled16``: sum h[j] / sum c[j] over all joints (princeton-vl).

The numbers in the names are MPII's; a joint set without pelvis and thorax keeps the names for the
means over its own joints, where weighted14 equals pooled16.
"""

from __future__ import annotations

import numpy as np

from hourglass.skeleton import Skeleton

_LEFT_OUT_OF_14 = ("pelvis", "thorax")


def normalized_errors(predicted: np.ndarray, truth: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Distances in units of a person's normaliser.

    Args:
      predicted: [..., J, 2] image px. A position that is not finite has an infinite error: a
        network that returns NaN misses instead of being excused.
      truth: [..., J, 2] image px, the same coordinates as ``predicted``.
      size: [...] image px, e.g. ``Person.head_size``. Where it is NaN, infinite or not positive,
        the person cannot be scored.

    Returns:
      [..., J] float64 without unit; NaN where the truth or the size is unknown.

    Raises:
      ValueError: when the shapes do not match.
    """
    predicted, truth, size = (np.asarray(a, np.float64) for a in (predicted, truth, size))
    if predicted.shape != truth.shape or truth.shape[-1:] != (2,) or size.shape != truth.shape[:-2]:
        raise ValueError(
            f"predicted {predicted.shape}, truth {truth.shape} and size {size.shape} do not match: "
            "pass [..., J, 2] twice and [...]"
        )
    predicted = np.where(np.isfinite(predicted), predicted, np.inf)
    offset = predicted - np.where(np.isfinite(truth), truth, np.nan)
    # hypot(inf, nan) is inf, which would count an unknown truth as a miss.
    error = np.where(np.isnan(offset).any(-1), np.nan, np.hypot(offset[..., 0], offset[..., 1]))
    usable = np.isfinite(size) & (size > 0)
    return error / np.where(usable, size, np.nan)[..., None]


def torso_size(truth: np.ndarray, scored: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Left shoulder to right hip, the normaliser of PCK@0.2 on LSP (``evalLSP_official``).

    Args:
      truth: [..., J, 2] image px.
      scored: [..., J] bool, True where the joint is labelled.
      skeleton: names the joints.

    Returns:
      [...] float64 image px; NaN unless both joints are labelled.
    """
    ends = [skeleton.index("left_shoulder"), skeleton.index("right_hip")]
    truth = np.asarray(truth, np.float64)[..., ends, :]
    diagonal = truth[..., 0, :] - truth[..., 1, :]
    length = np.hypot(diagonal[..., 0], diagonal[..., 1])
    return np.where(np.asarray(scored, bool)[..., ends].all(axis=-1), length, np.nan)


def torso_pck(
    predicted: np.ndarray,
    truth: np.ndarray,
    scored: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.2,
) -> dict[str, float]:
    """PCK@0.2 as in the tables on LSP: person-centric, in units of the torso.

    A joint is a hit within ``threshold`` x |left shoulder - right hip| of the truth (the person's
    own left and right; ``eval_pck.m`` of bearpaw/eval_pose, after Sapp and Taskar 2013). Everybody
    with both ends labelled is scored, occluded joints too. LSP's "head" column is the mean of neck
    and head top, unlike MPII's. The tables' last column is all joints pooled, hits over counts:
    ``pooled16``; on LSP itself, where no joint is missing, ``mean14`` is the same. (What Yang and
    Ramanan, 2013, called PCK divides by the longer side of the joints' bounding box instead, which
    is never shorter than the torso's sides: different numbers.)

    Args:
      predicted: [N, J, 2] image px.
      truth: [N, J, 2] image px.
      scored: [N, J] bool, True where the joint is labelled, visible or occluded.
      skeleton: names the joints.
      threshold: in torsos.

    Returns:
      A row of ``summarize``, in percent.
    """
    errors = normalized_errors(predicted, truth, torso_size(truth, scored, skeleton))
    hits, counts = hits_and_counts(errors, scored, threshold)
    row = summarize(hits, counts, skeleton)
    if "head" in row and {"neck", "head_top"} <= set(skeleton.joints):
        ends = [skeleton.index("neck"), skeleton.index("head_top")]
        row["head"] = float(_mean(per_joint(hits, counts)[ends]))
    return row


def _known(errors: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors as float64, and a mask of those that are scored and known."""
    errors, scored = np.asarray(errors, np.float64), np.asarray(scored, bool)
    if errors.ndim != 2 or errors.shape != scored.shape:
        raise ValueError(
            f"errors {errors.shape} and scored {scored.shape} must both be [people, joints]"
        )
    return errors, scored & ~np.isnan(errors)


def hits_and_counts(
    errors: np.ndarray, scored: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Hits and scored joints, to be summed over batches and divided once.

    An error of exactly the threshold is a hit, as in MPII's own evalMPII, HRNet and Newell's Lua;
    pytorch-pose and princeton-vl use "<". They differ for exact ties only.

    Args:
      errors: [N, J] from ``normalized_errors``; NaN is never counted.
      scored: [N, J] bool, True where the joint is labelled, visible or occluded.
      threshold: in the errors' unit, e.g. 0.5.

    Returns:
      hits [J] and counts [J], float64.

    Raises:
      ValueError: when the two shapes differ or are not [N, J].
    """
    errors, known = _known(errors, scored)
    return ((errors <= threshold) & known).sum(0, np.float64), known.sum(0, np.float64)


def area_under_curve(
    errors: np.ndarray, scored: np.ndarray, limit: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Area under PCK(t) for t from 0 to ``limit``, divided by ``limit``: exact, without a grid.

    A joint with error e is a hit from t = e on, hence contributes max(0, 1 - e / limit).

    Returns:
      Sums [J] and counts [J], float64, to be summed and summarized like hits and counts.

    Raises:
      ValueError: when the two shapes differ or are not [N, J].
    """
    errors, known = _known(errors, scored)
    shares = np.clip(1 - np.where(known, errors, np.inf) / limit, 0, 1)
    return shares.sum(0), known.sum(0, np.float64)


def _ratio(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(hits, counts, out=np.full(np.shape(hits), np.nan), where=counts > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    return _ratio(np.nansum(values, axis=-1), (~np.isnan(values)).sum(-1, np.float64))


def per_joint(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[..., J] float64 percent; NaN for joints that were never scored."""
    return 100 * _ratio(np.asarray(hits, np.float64), np.asarray(counts, np.float64))


def summarize(
    hits: np.ndarray, counts: np.ndarray, skeleton: Skeleton
) -> dict[str, float | np.ndarray]:
    """One row of the published tables, in percent.

    Args:
      hits: [J] sums over people; [..., J] for many rows at once.
      counts: scored people per joint, of the same shape.
      skeleton: names the joints.

    Returns:
      Each of ``skeleton.groups`` (the mean of its joints), then ``mean14``, ``weighted14`` and
      ``pooled16`` as defined at the top of this module: floats, or [...] arrays for many rows.
      Joints that were never scored are left out of the unweighted means; NaN if none is left.

    Raises:
      ValueError: when the arrays are not [..., J].
    """
    hits, counts = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    if hits.shape[-1:] != (len(skeleton),) or counts.shape != hits.shape:
        raise ValueError(
            f"hits {hits.shape} and counts {counts.shape} must both be [{len(skeleton)}], "
            "one entry per joint of the skeleton"
        )
    percent = per_joint(hits, counts)
    row = {group: _mean(percent[..., joints]) for group, joints in skeleton.groups.items()}
    fourteen = np.array([name not in _LEFT_OUT_OF_14 for name in skeleton.joints])
    row["mean14"] = _mean(percent[..., fourteen])
    row["weighted14"] = per_joint(hits[..., fourteen].sum(-1), counts[..., fourteen].sum(-1))
    row["pooled16"] = per_joint(hits.sum(-1), counts.sum(-1))
    return {name: value if np.ndim(value) else float(value) for name, value in row.items()}
