"""What TensorBoard shows of a run."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hourglass.skeleton import Skeleton
from pipelines import draw, evaluate


def write_flags(writer: tf.summary.SummaryWriter, flagfile: str) -> None:
    """The run's flags as text."""
    with writer.as_default(step=0):
        tf.summary.text("flags", "    " + flagfile.replace("\n", "\n    "))


def write_training(writer: tf.summary.SummaryWriter, step: int, report: dict) -> None:
    """Scalars of the steps since the last log.

    Args:
      writer: of the run.
      step: the last step.
      report: "losses" [S], further numbers by tag, and "PCKh" as ``pckh.summarize`` gives.
    """
    with writer.as_default(step=step):
        for stack, value in enumerate(report["losses"]):
            tf.summary.scalar(f"loss/stack{stack}", value)
        tf.summary.scalar("loss/total", sum(report["losses"]))
        for tag in ("learning_rate", "gradient_norm", "images_per_second", "data_wait_percent"):
            tf.summary.scalar(f"training/{tag}", report[tag])
        _write_row("training PCKh@0.5", report["PCKh"])
    writer.flush()


def write_validation(
    writer: tf.summary.SummaryWriter, step: int, weights: str, results: dict
) -> None:
    """PCKh per joint group and mean of the "raw" or "averaged" weights."""
    with writer.as_default(step=step):
        for measure, row in results.items():
            if isinstance(row, dict):
                _write_row(f"validation {weights} {measure}", row)
    writer.flush()


def _write_row(prefix: str, row: dict[str, float]) -> None:
    for name, value in row.items():
        if np.isfinite(value):
            tf.summary.scalar(f"{prefix}/{name}", value)


def write_pictures(
    writer: tf.summary.SummaryWriter, step: int, shown: dict, skeleton: Skeleton
) -> None:
    """Validation people with true and predicted skeletons, and with their heatmaps."""
    panels = [draw.heatmap_panel(i, h) for i, h in zip(shown["images"], shown["heatmaps"])]
    with writer.as_default(step=step):
        tf.summary.image("validation/skeletons", evaluate.grid(shown, skeleton)[None])
        tf.summary.image("validation/heatmaps", np.stack(panels), max_outputs=len(panels))
    writer.flush()
