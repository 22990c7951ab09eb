"""The one scorer, for training, evaluation, prediction files and exports."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from hourglass import metrics
from hourglass.skeleton import Skeleton
from pipelines.data.annotations import LABELLED, MISSING, OCCLUDED
from pipelines.evaluation.ground_truth import Truth

MEANS = ("mean14", "weighted14", "pooled16")

# Hundredths from 0 to 0.5, each the float nearest to its decimal.
THRESHOLDS = np.arange(51) / 100

# px, the width of published heatmaps; in these pixels a bias is comparable between people.
HEATMAP = 64


def errors(
    predicted: np.ndarray, truth: Truth, true_joints: np.ndarray | None = None
) -> np.ndarray:
    """Distances between predicted and true joints: the one definition of an error.

    Args:
      predicted: [N, J, 2] image px.
      truth: of N people.
      true_joints: [N, J, 2] image px; None for ``truth.joints``.

    Returns:
      [N, J] float64 head sizes; NaN where a joint is missing, or its person has no head size.
    """
    joints = truth.joints if true_joints is None else true_joints
    distances = metrics.normalized_errors(predicted, joints, truth.head_size)
    return np.where(truth.state != MISSING, distances, np.nan)


def over_joints(statistic: Callable, errors: np.ndarray) -> np.ndarray:
    """[N] ``np.nanmean`` or ``np.nanmedian`` of each person's errors [N, J]; NaN if all are NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about people without errors
        return statistic(errors, axis=1)


def pckh(
    errors: np.ndarray,
    skeleton: Skeleton,
    threshold: float = 0.5,
    scored: np.ndarray | None = None,
) -> dict[str, float]:
    """PCKh in percent of errors [N, J] head sizes: a row of ``metrics.summarize``.

    Args:
      errors: NaN where a joint is not scored.
      skeleton: names the joints.
      threshold: of a hit, head sizes.
      scored: [N, J] bool, joints to count; None for all with an error.
    """
    scored = ~np.isnan(errors) if scored is None else scored
    return metrics.summarize(*metrics.hits_and_counts(errors, scored, threshold), skeleton)


def worst(errors: np.ndarray) -> np.ndarray:
    """[N] indices of people by mean error, the largest first, those not scored last."""
    # A position that is not finite has an infinite error, and comes first.
    means = np.nan_to_num(over_joints(np.nanmean, errors), nan=-1.0, posinf=np.inf)
    return np.argsort(-means, kind="stable")


def score(predicted: np.ndarray, truth: Truth) -> dict:
    """All numbers of results.json.

    Args:
      predicted: [N, J, 2] float64 0-based image px, rows as in ``truth``.
      truth: of N people.

    Returns:
      The rows of ``rows``; "interval_95": mean -> [low, high] of PCKh@0.5; "bias": see ``bias``;
      "people", "people_scored_by_PCKh" and "images".
    """
    distances = errors(predicted, truth)
    pooled = errors(predicted, truth, truth.pooled_joints)
    intervals = interval(distances, truth.images, truth.skeleton)
    intervals["pooled16"] = interval(pooled, truth.images, truth.skeleton)["pooled16"]
    return {
        **rows(predicted, truth),
        "interval_95": intervals,
        "bias": bias(predicted, truth, distances),
        "people": len(distances),
        "people_scored_by_PCKh": int((~np.isnan(distances)).any(1).sum()),
        "images": len(set(truth.images)),
    }


def rows(predicted: np.ndarray, truth: Truth) -> dict[str, dict[str, float]]:
    """PCKh and PCK of predictions [N, J, 2] image px, in percent: rows of ``metrics.summarize``.

    "PCKh@0.5", "PCKh@0.2", "PCKh@0.1", "AUC" (0 to 0.5), "PCKh@0.5 visible" and "PCKh@0.5 occluded"
    if the truth distinguishes them, and "PCK@0.2 torso" for joint sets with a torso.
    """
    results = _pckh_rows(errors(predicted, truth), truth)
    if truth.pooled_joints is not truth.joints:
        pooled = _pckh_rows(errors(predicted, truth, truth.pooled_joints), truth)
        for name, row in pooled.items():
            results[name]["pooled16"] = row["pooled16"]
    if {"left_shoulder", "right_hip"} <= set(truth.skeleton.joints):
        scored = truth.state != MISSING
        results["PCK@0.2 torso"] = metrics.torso_pck(
            predicted, truth.joints, scored, truth.skeleton
        )
    return results


def mean14(predicted: np.ndarray, truth: Truth) -> float:
    """PCKh@0.5 in percent of predictions [N, J, 2] image px, the unweighted mean."""
    return rows(predicted, truth)["PCKh@0.5"]["mean14"]


def _pckh_rows(errors: np.ndarray, truth: Truth) -> dict[str, dict[str, float]]:
    skeleton, state = truth.skeleton, truth.state
    results = {
        f"PCKh@{threshold}": pckh(errors, skeleton, threshold) for threshold in (0.5, 0.2, 0.1)
    }
    results["AUC"] = metrics.summarize(
        *metrics.area_under_curve(errors, state != MISSING, 0.5), skeleton
    )
    if (state == OCCLUDED).any():
        results["PCKh@0.5 visible"] = pckh(errors, skeleton, scored=state == LABELLED)
        results["PCKh@0.5 occluded"] = pckh(errors, skeleton, scored=state == OCCLUDED)
    return results


def interval(
    errors: np.ndarray,
    images: tuple[str, ...],
    skeleton: Skeleton,
    *,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95 % interval of each mean by a bootstrap over photographs.

    People of one photograph share its difficulty; hence photographs, not people, are sampled with
    replacement.

    Args:
      errors: [N, J] head sizes, NaN where a joint is not scored.
      images: N photographs.
      skeleton: names the joints.
      threshold: of a hit, head sizes.
      resamples: number of bootstrap samples.
      seed: of the sampling.

    Returns:
      mean14, weighted14, pooled16 -> [2.5th, 97.5th percentile], percent; NaN without joints.
    """
    _, cluster = np.unique(images, return_inverse=True)
    count = cluster.max() + 1
    hits, counts = np.zeros((2, count, errors.shape[1]))
    np.add.at(hits, cluster, errors <= threshold)
    np.add.at(counts, cluster, ~np.isnan(errors))
    sampled = np.random.default_rng(seed).integers(count, size=(resamples, count))
    sampled += count * np.arange(resamples)[:, None]
    times = np.bincount(sampled.ravel(), minlength=resamples * count).reshape(resamples, count)
    times = times.astype(np.float64)
    row = metrics.summarize(times @ hits, times @ counts, skeleton)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about means without joints
        return {mean: np.nanpercentile(row[mean], [2.5, 97.5]).tolist() for mean in MEANS}


def bias(predicted: np.ndarray, truth: Truth, errors: np.ndarray) -> dict:
    """Median signed error of the correct joints (PCKh@0.5), predicted minus true.

    Args:
      predicted: [N, J, 2] image px.
      truth: of N people.
      errors: [N, J] head sizes, NaN where a joint is not scored.

    Returns:
      "image_px" [x, y]; "heatmap_px" [x, y], ``HEATMAP`` px per crop side, None without known crop
      sides; "margin_heatmap_px" [x, y], half its 95 % interval, likewise; "correct_joints", their
      number. NaN without a correct joint.
    """
    correct = errors <= 0.5
    offset, sides = predicted - truth.joints, np.broadcast_to(truth.side[:, None], errors.shape)
    with_side = correct & np.isfinite(sides)
    in_heatmap = offset[with_side] * HEATMAP / sides[with_side][:, None]
    return {
        "image_px": _median(offset[correct]),
        "heatmap_px": _median(in_heatmap) if with_side.any() else None,
        "margin_heatmap_px": _margin(in_heatmap) if with_side.any() else None,
        "correct_joints": int(correct.sum()),
    }


def _margin(offsets: np.ndarray) -> list[float]:
    # A median's standard error under a normal distribution is 1.2533 times the mean's.
    return (1.96 * 1.2533 * offsets.std(0) / np.sqrt(len(offsets))).tolist()


def _median(offsets: np.ndarray) -> list[float]:
    return np.median(offsets, axis=0).tolist() if len(offsets) else [float("nan")] * 2


def curve(errors: np.ndarray, pooled: np.ndarray, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """PCKh over the threshold: "threshold" [51] and each group and mean [51] in percent.

    Args:
      errors: [N, J] head sizes, NaN where a joint is not scored.
      pooled: the same for pooled16.
      skeleton: names the joints.
    """
    columns = metrics.summarize(*_at_every_threshold(errors), skeleton)
    columns["pooled16"] = metrics.summarize(*_at_every_threshold(pooled), skeleton)["pooled16"]
    return {"threshold": THRESHOLDS, **columns}


def _at_every_threshold(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = [metrics.hits_and_counts(errors, ~np.isnan(errors), t) for t in THRESHOLDS]
    hits, counts = np.array(pairs).swapaxes(0, 1)
    return hits, counts
