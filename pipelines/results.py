"""Results of an evaluation: the rows beside PCKh, the printed table, results.json."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import rich.console
import rich.table

from hourglass import pckh
from hourglass.skeleton import Skeleton
from pipelines.files import write_atomically

# Of the printed table, beside its first: ten groups and three means fit 120 characters.
MOST_COLUMNS = 13


def torso_row(
    found: np.ndarray, truth: np.ndarray, scored: np.ndarray, skeleton: Skeleton
) -> dict[str, dict[str, float]]:
    """Return {"PCK@0.2 torso": row in percent}, empty for joint sets without a torso.

    Args:
      found: [N, J, 2] image px.
      truth: [N, J, 2] image px.
      scored: [N, J] bool, True where the joint is labelled.
      skeleton: names the joints.
    """
    if not {"left_shoulder", "right_hip"} <= set(skeleton.joints):
        return {}
    return {"PCK@0.2 torso": pckh.torso_pck(found, truth, scored, skeleton)}


def table(results: dict, title: str, digits: int = 1) -> rich.table.Table:
    """Results as a table: one row per measure, one column per joint group and mean.

    Of joint sets with so many groups that the columns would not fit, the other way round.
    """
    rows = {name: row for name, row in results.items() if isinstance(row, dict)}
    columns = list(next(iter(rows.values())))
    cells = {m: {c: f"{row[c]:.{digits}f}" for c in columns} for m, row in rows.items()}
    shown = rich.table.Table(title=title)
    corner, across, down = "measure", columns, list(rows)
    if len(columns) > MOST_COLUMNS:
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
    # Into a file or a pipe it prints 80 columns otherwise, which cuts the table's headings off.
    width = None if sys.stdout.isatty() else 120
    rich.console.Console(width=width).print(printed)


def write_results(folder: str, results: dict) -> None:
    """Write results.json; a measure without any scored joint is null."""
    text = json.dumps(no_nan(results), indent=1, allow_nan=False)
    write_atomically(os.path.join(folder, "results.json"), text.encode())


def no_nan(value):
    """Return what JSON can hold: numbers that are none become null."""
    if isinstance(value, dict):
        return {key: no_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [no_nan(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
