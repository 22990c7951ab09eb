"""What TensorBoard shows of a run."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

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


def read_validation(folder: str, measure: str = "PCKh@0.5", column: str = "mean14") -> dict:
    """A run's validation curves, as ``write_validation`` wrote them.

    Args:
      folder: of the run; its event files are in ``logs``. A resumed run has several; of a step
        validated twice the later one counts.
      measure: e.g. "PCKh@0.5", "PCKh@0.1", "AUC".
      column: a joint group or mean, e.g. "mean14".

    Returns:
      "raw" and "averaged", as far as they were validated -> (steps [n], percent [n]), ascending.

    Raises:
      FileNotFoundError: a folder without event files.
      ValueError: no validation of this measure and column in them; names those that there are.
    """
    logs = os.path.join(folder, "logs")
    if not tf.io.gfile.glob(os.path.join(logs, "events.out.tfevents.*")):
        raise FileNotFoundError(f"{folder} is no run: no event files in {logs}; name a --workdir")
    events = event_accumulator.EventAccumulator(logs, {"tensors": 0}).Reload()
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("validation ")]
    wanted = {kind: f"validation {kind} {measure}/{column}" for kind in ("raw", "averaged")}
    curves = {kind: _curve(events, tag) for kind, tag in wanted.items() if tag in tags}
    if not curves:
        there = sorted({tag.split(" ", 2)[2] for tag in tags}) or ["none at all"]
        raise ValueError(
            f"{folder} has no validation of {measure}/{column}; it has {', '.join(there)}"
        )
    return curves


def _curve(events: event_accumulator.EventAccumulator, tag: str) -> tuple[np.ndarray, np.ndarray]:
    points = {one.step: float(tf.make_ndarray(one.tensor_proto)) for one in events.Tensors(tag)}
    steps = sorted(points)
    return np.array(steps), np.array([points[step] for step in steps])


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
