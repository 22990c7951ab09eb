"""Curves as pictures. Kept apart from draw.py, so that prediction does not import matplotlib."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure


def curves(columns: dict[str, np.ndarray], title: str) -> bytes:
    """Plot PCKh against the threshold as PNG.

    Args:
      columns: "threshold" [T] in head sizes, then name -> [T] percent; "mean14" is a thick line,
        columns of NaN only are omitted.
      title: one line above the plot.

    Returns:
      The file's bytes.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="threshold, head sizes", ylabel="PCKh, %")
    thresholds = columns["threshold"]
    for name, percent in columns.items():
        if name != "threshold" and not np.isnan(percent).all():
            thick = name == "mean14"
            axes.plot(
                thresholds,
                percent,
                label=f"{name} {percent[-1]:.1f}",
                color="black" if thick else None,
                linewidth=2.5 if thick else 1.2,
            )
    axes.set(xlim=(0, thresholds[-1]), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", title=f"at {thresholds[-1]:g}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def panels(curves: dict[str, dict[str, tuple]], xlabel: str, ylabel: str) -> bytes:
    """Plot curves as PNG, in panels with the same axes and one legend.

    Args:
      curves: panel's title -> name of a curve -> (x [n], y [n]); all panels have the same names.
      xlabel: below the whole.
      ylabel: at its left.

    Returns:
      The file's bytes.
    """
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.8), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (title, named) in zip(grid, curves.items()):
        for name, (x, y) in named.items():
            axes.plot(x, y, marker=".", linewidth=1.4, label=name)
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    figure.supxlabel(xlabel)
    figure.supylabel(ylabel)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
