"""Score any prediction file against any ground truth, without a network."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from hourglass import pckh
from hourglass.skeleton import Skeleton
from pipelines import ground_truth, match, plot, predictions
from pipelines.files import write_atomically
from pipelines.ground_truth import Truth
from pipelines.people import LABELLED, MISSING, OCCLUDED
from pipelines.results import show, table, torso_row, write_results

MEANS = ("mean14", "weighted14", "pooled16")

# Hundredths from 0 to 0.5, each the float nearest to its decimal.
THRESHOLDS = np.arange(51) / 100

# Published heatmaps are this wide; a bias is comparable between people in these pixels.
HEATMAP = 64

# A bias of this many heatmap px costs points at strict thresholds and is a decoder's mistake.
TOLERATED_BIAS = 0.1


def score(found: np.ndarray, truth: Truth) -> dict:
    """Everything that results.json holds about the numbers.

    Args:
      found: [N, J, 2] float64 0-based image px, rows as in ``truth``.
      truth: of N people.

    Returns:
      "PCKh@0.5", "PCKh@0.2", "PCKh@0.1", "AUC" (0 to 0.5), "PCKh@0.5 visible" and "PCKh@0.5
      occluded" where the truth tells, and "PCK@0.2 torso": rows in percent, see
      ``pckh.summarize``. "interval_95": mean -> [low, high] of PCKh@0.5. "bias": see ``bias``.
      "people", "people_scored_by_PCKh", "images".
    """
    errors = match.errors(found, truth.joints, truth)
    results = _rows(errors, truth)
    results.update(torso_row(found, truth.joints, truth.state != MISSING, truth.skeleton))
    pooled = match.errors(found, truth.pooled_joints, truth)
    if truth.pooled_joints is not truth.joints:
        for name, row in _rows(pooled, truth).items():
            results[name]["pooled16"] = row["pooled16"]
    results["interval_95"] = interval(errors, truth.images, truth.skeleton)
    results["interval_95"]["pooled16"] = interval(pooled, truth.images, truth.skeleton)["pooled16"]
    results["bias"] = bias(found, truth, errors)
    results["people"] = len(errors)
    results["people_scored_by_PCKh"] = int((~np.isnan(errors)).any(1).sum())
    results["images"] = len(set(truth.images))
    return results


def _rows(errors: np.ndarray, truth: Truth) -> dict[str, dict[str, float]]:
    def at(threshold: float, scored: np.ndarray) -> dict[str, float]:
        return pckh.summarize(*pckh.hits_and_counts(errors, scored, threshold), truth.skeleton)

    scored = truth.state != MISSING
    rows = {f"PCKh@{threshold}": at(threshold, scored) for threshold in (0.5, 0.2, 0.1)}
    rows["AUC"] = pckh.summarize(*pckh.area_under_curve(errors, scored, 0.5), truth.skeleton)
    if (truth.state == OCCLUDED).any():
        rows["PCKh@0.5 visible"] = at(0.5, truth.state == LABELLED)
        rows["PCKh@0.5 occluded"] = at(0.5, truth.state == OCCLUDED)
    return rows


def interval(
    errors: np.ndarray,
    images: tuple[str, ...],
    skeleton: Skeleton,
    *,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """95 % interval of each mean by a bootstrap of photographs.

    People of one photograph share its difficulty, so photographs, not people, are drawn with
    replacement.

    Args:
      errors: [N, J] head sizes, NaN where a joint is not scored.
      images: N photographs.
      skeleton: names the joints.
      threshold: of a hit, head sizes.
      resamples: draws of as many photographs as there are.
      seed: of the draws.

    Returns:
      mean14, weighted14, pooled16 -> [2.5th, 97.5th percentile], percent; NaN without joints.
    """
    _, cluster = np.unique(images, return_inverse=True)
    count = cluster.max() + 1
    hits, counts = np.zeros((2, count, errors.shape[1]))
    np.add.at(hits, cluster, errors <= threshold)
    np.add.at(counts, cluster, ~np.isnan(errors))
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    drawn += count * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    times = times.astype(np.float64)
    rows = pckh.summarize(times @ hits, times @ counts, skeleton)
    return {mean: _middle_95(rows[mean]) for mean in MEANS}


def _middle_95(values: np.ndarray) -> list[float]:
    values = values[~np.isnan(values)]
    return np.percentile(values, [2.5, 97.5]).tolist() if len(values) else [float("nan")] * 2


def bias(found: np.ndarray, truth: Truth, errors: np.ndarray) -> dict:
    """Median signed error of the correct joints (PCKh@0.5), predicted less true.

    Args:
      found: [N, J, 2] image px.
      truth: of N people.
      errors: [N, J] head sizes, NaN where a joint is not scored.

    Returns:
      "image_px" [x, y]; "heatmap_px" [x, y], ``HEATMAP`` to a crop's side, None where no crop
      side is known; "correct_joints", how many it is the median of. NaN without a correct joint.
    """
    correct = errors <= 0.5
    offset, sides = found - truth.joints, np.broadcast_to(truth.side[:, None], errors.shape)
    with_side = correct & np.isfinite(sides)
    in_heatmap = offset[with_side] * HEATMAP / sides[with_side][:, None]
    return {
        "image_px": _median(offset[correct]),
        "heatmap_px": _median(in_heatmap) if with_side.any() else None,
        "correct_joints": int(correct.sum()),
    }


def _median(offsets: np.ndarray) -> list[float]:
    return np.median(offsets, axis=0).tolist() if len(offsets) else [float("nan")] * 2


def bias_warning(shift: dict) -> str:
    """One sentence when ``bias`` exceeds a tenth of a heatmap pixel, otherwise empty."""
    large = [
        f"{value:+.2f} in {axis}"
        for axis, value in zip("xy", shift["heatmap_px"] or ())
        if abs(value) > TOLERATED_BIAS
    ]
    if not large:
        return ""
    return (
        f"warning: correct joints lie {' and '.join(large)} heatmap px beside the truth, more than "
        f"{TOLERATED_BIAS}: a decoder's or a crop's half pixel costs this file points"
    )


def curve(errors: np.ndarray, pooled: np.ndarray, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """PCKh over the threshold: "threshold" [51] and each group and mean [51] in percent.

    Args:
      errors: [N, J] head sizes, NaN where a joint is not scored.
      pooled: the same for pooled16.
      skeleton: names the joints.
    """
    columns = pckh.summarize(*_at_every_threshold(errors), skeleton)
    columns["pooled16"] = pckh.summarize(*_at_every_threshold(pooled), skeleton)["pooled16"]
    return {"threshold": THRESHOLDS, **columns}


def _at_every_threshold(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = [pckh.hits_and_counts(errors, ~np.isnan(errors), t) for t in THRESHOLDS]
    hits, counts = np.array(pairs).swapaxes(0, 1)
    return hits, counts


def _csv(columns: dict[str, np.ndarray]) -> str:
    lines = [",".join(columns)]
    for row in zip(*columns.values()):
        lines.append(",".join("" if np.isnan(value) else f"{value:.10g}" for value in row))
    return "\n".join(lines) + "\n"


def _write(output: str, results: dict, columns: dict[str, np.ndarray], title: str) -> None:
    write_atomically(os.path.join(output, "curve.csv"), _csv(columns).encode())
    shown = {name: column for name, column in columns.items() if name not in MEANS[1:]}
    write_atomically(os.path.join(output, "curve.png"), plot.curves(shown, title))
    write_results(output, results)


def _print(results: dict, truth: Truth, title: str) -> None:
    rows = {name: row for name, row in results.items() if name.startswith(("PCK", "AUC"))}
    show(table(rows, title, digits=2))
    for mean, (low, high) in results["interval_95"].items():
        print(f"{mean} {results['PCKh@0.5'][mean]:.3f}, 95 % from {low:.2f} to {high:.2f}")
    print(_bias_line(results["bias"]))
    print(_people_line(results, truth))
    for line in (bias_warning(results["bias"]), _occlusion_line(truth), truth.note):
        if line:
            print(line)


def _bias_line(shift: dict) -> str:
    places = {"image": shift["image_px"], "heatmap": shift["heatmap_px"]}
    parts = [f"{at[0]:+.3f} {at[1]:+.3f} {name} px" for name, at in places.items() if at]
    if not shift["heatmap_px"]:
        parts.append("heatmap px unknown: this truth has no crop scale")
    return (
        f"bias in x and y, median of {shift['correct_joints']} correct joints: {'; '.join(parts)}"
    )


def _people_line(results: dict, truth: Truth) -> str:
    unscored = results["people"] - results["people_scored_by_PCKh"]
    return (
        f"{results['people']} people; {unscored} of them not scored by PCKh (no head size, or no "
        f"labelled joint); {truth.left_out} others of the truth's file cannot be used"
    )


def _occlusion_line(truth: Truth) -> str:
    if (truth.state == OCCLUDED).any():
        return ""
    return "this truth does not tell occluded joints from visible ones"


def _check_flags(predictions_file: str, truth_file: str, output: str) -> None:
    if not (predictions_file and truth_file):
        raise ValueError(
            "--predictions, --ground_truth and --output score a file without a network: give at "
            "least the first two, or none of them to evaluate a checkpoint"
        )
    if output and tf.io.gfile.exists(output) and not tf.io.gfile.isdir(output):
        raise ValueError(f"--output={output} is a file; name a folder, new or old")


def run(
    predictions_file: str, truth_file: str, output: str = "", split: str = "validation"
) -> dict:
    """Score a prediction file: print the table; with ``output`` write results and the curve.

    Args:
      predictions_file: what ``predictions.read_foreign`` reads.
      truth_file: what ``ground_truth.read`` reads.
      output: folder for results.json, curve.csv and curve.png; nothing is written without it.
      split: whose people are predicted.

    Returns:
      What results.json holds: see ``score``, and which files were compared.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file of another kind, or predictions that do not belong to this truth.
      OSError: the results cannot be written.
    """
    _check_flags(predictions_file, truth_file, output)
    truth = ground_truth.read(truth_file, split)
    ids, found = predictions.read_foreign(predictions_file, truth.origin, truth.skeleton)
    match.check(ids, found, truth)
    results = score(found, truth)
    results.update(dataset=truth.name, split=truth.split, head_rule=truth.head_rule)
    results.update(predictions=predictions_file, ground_truth=truth_file, note=truth.note)
    results["left_out"] = truth.left_out
    file = os.path.basename(predictions_file)
    title = f"{file}: {len(found)} people of {truth.name} {truth.split}"
    if output:
        errors = (match.errors(found, at, truth) for at in (truth.joints, truth.pooled_joints))
        _write(output, results, curve(*errors, truth.skeleton), title)
    _print(results, truth, title)
    if output:
        print(f"{predictions_file} -> {output}/results.json, curve.csv, curve.png")
    return results
