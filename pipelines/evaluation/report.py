"""Report of an evaluation: the printed table, results.json, the curve."""

from __future__ import annotations

import csv
import io
import json
import os
import sys

import numpy as np
import rich.console
import rich.table

from pipelines.data.annotations import OCCLUDED
from pipelines.evaluation import scoring
from pipelines.evaluation.ground_truth import Truth
from pipelines.io import write_atomically
from pipelines.visualization import curves

# A bias of this many heatmap px costs points at strict thresholds and indicates a decoder bug.
TOLERATED_BIAS = 0.1

# Of the printed table, without the first: ten groups and three means fit into 120 characters.
MAX_COLUMNS = 13


def report(predicted: np.ndarray, truth: Truth, *, title: str, source: dict, output: str) -> dict:
    """Score predictions, print the table, write results.json and the curve.

    Args:
      predicted: [N, J, 2] float64 0-based image px, rows as in ``truth``.
      truth: of N people.
      title: of the table and the curve.
      source: where the predictions come from, for results.json.
      output: folder; "" writes nothing.

    Returns:
      The contents of results.json: ``scoring.score``, ``describe`` and ``source``.
    """
    results = scoring.score(predicted, truth) | describe(truth) | {"source": source}
    if output:
        errors = scoring.errors(predicted, truth)
        pooled = scoring.errors(predicted, truth, truth.pooled_joints)
        _write_curve(output, scoring.curve(errors, pooled, truth.skeleton), title)
        write_results(output, results)
    _print_results(results, truth, title)
    return results


def describe(truth: Truth) -> dict:
    """Description of a truth: data set, split, head rule, people left out, a note."""
    return {
        "dataset": truth.name,
        "split": truth.split,
        "head_rule": truth.head_rule,
        "left_out": truth.left_out,
        "note": truth.note,
    }


def table(results: dict, title: str, digits: int = 1) -> rich.table.Table:
    """Results as a table: one row per measure, one column per joint group and mean.

    Transposed for joint sets with more groups than columns fit.
    """
    rows = {name: row for name, row in results.items() if isinstance(row, dict)}
    columns = list(next(iter(rows.values())))
    cells = {m: {c: f"{row[c]:.{digits}f}" for c in columns} for m, row in rows.items()}
    shown = rich.table.Table(title=title)
    corner, across, down = "measure", columns, list(rows)
    if len(columns) > MAX_COLUMNS:
        corner, across, down = "joints", list(rows), columns
        cells = {c: {m: cells[m][c] for m in rows} for c in columns}
    shown.add_column(corner)
    for heading in across:
        shown.add_column(heading, justify="right")
    for name in down:
        shown.add_row(name, *(cells[name][heading] for heading in across))
    return shown


def show(printed: rich.table.Table) -> None:
    """Print a table, as wide as the terminal."""
    # Otherwise files and pipes get 80 columns, which truncates the table's headings.
    width = None if sys.stdout.isatty() else 120
    rich.console.Console(width=width).print(printed)


def write_results(folder: str, results: dict) -> None:
    """Write results.json; a measure without scored joints is null."""
    text = json.dumps(no_nan(results), indent=1, allow_nan=False)
    write_atomically(os.path.join(folder, "results.json"), text.encode())


def no_nan(value):
    """Value for JSON: numbers that are not finite become None, tuples become lists."""
    if isinstance(value, dict):
        return {key: no_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [no_nan(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _print_results(results: dict, truth: Truth, title: str) -> None:
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
    grids = {"image": shift["image_px"], "heatmap": shift["heatmap_px"]}
    parts = [f"{xy[0]:+.3f} {xy[1]:+.3f} {name} px" for name, xy in grids.items() if xy]
    if not shift["heatmap_px"]:
        parts.append("heatmap px unknown: this truth has no crop scale")
    return (
        f"bias in x and y, median of {shift['correct_joints']} correct joints: {'; '.join(parts)}"
    )


def _people_line(results: dict, truth: Truth) -> str:
    unscored = results["people"] - results["people_scored_by_PCKh"]
    return (
        f"{results['people']} people; {unscored} of them not scored by PCKh (no head size, or no "
        f"labelled joint); {truth.left_out} others of the truth's file are unusable"
    )


def _occlusion_line(truth: Truth) -> str:
    if (truth.state == OCCLUDED).any():
        return ""
    return "this truth does not distinguish occluded from visible joints"


def bias_warning(shift: dict) -> str:
    """One sentence if ``bias`` surely exceeds ``TOLERATED_BIAS``, else ""."""
    if not shift["heatmap_px"]:
        return ""
    large = [
        f"{value:+.2f} in {axis}"
        for axis, value, margin in zip("xy", shift["heatmap_px"], shift["margin_heatmap_px"])
        if abs(value) - margin > TOLERATED_BIAS
    ]
    if not large:
        return ""
    return (
        f"warning: correct joints are {' and '.join(large)} heatmap px off the truth, more than "
        f"{TOLERATED_BIAS}: a half-pixel error of the decoder or the crop costs points"
    )


def _csv(columns: dict[str, np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values()):
        writer.writerow("" if np.isnan(value) else f"{value:.10g}" for value in row)
    return text.getvalue()


def _write_curve(output: str, columns: dict[str, np.ndarray], title: str) -> None:
    write_atomically(os.path.join(output, "curve.csv"), _csv(columns).encode())
    shown = {name: column for name, column in columns.items() if name not in scoring.MEANS[1:]}
    write_atomically(os.path.join(output, "curve.png"), curves.curves(shown, title))
