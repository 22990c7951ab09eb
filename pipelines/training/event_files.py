"""Tags of a run's validation in its event files, and reading the curves from them."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator


def validation_tag(kind: str, measure: str = "PCKh@0.5", column: str = "mean14") -> str:
    """The TensorBoard tag of one number of a validation.

    Args:
      kind: weights validated, "raw" or "averaged".
      measure: e.g. "PCKh@0.5", "PCKh@0.1", "AUC".
      column: a joint group or mean, e.g. "mean14".
    """
    if (measure, column) == ("PCKh@0.5", "mean14"):
        return f"overview/PCKh@0.5 {kind}"  # on TensorBoard's first page
    return f"validation {kind}/{measure} {column}"


_PATTERNS = ("validation {} {}/{}".format, validation_tag)  # earlier versions' tags and today's


def read_validation(folder: str, measure: str = "PCKh@0.5", column: str = "mean14") -> dict:
    """A run's validation curves, as ``write_validation`` wrote them.

    Args:
      folder: the run's; its event files are in ``logs``. A resumed run has several; where a step
        was validated twice, the later result counts.
      measure: e.g. "PCKh@0.5", "PCKh@0.1", "AUC".
      column: a joint group or mean, e.g. "mean14".

    Returns:
      "raw" and "averaged", those that were validated -> (steps [n], percent [n]), ascending.

    Raises:
      FileNotFoundError: no event files in the folder.
      ValueError: they hold no validation of this measure and column; lists those they do hold.
    """
    logs = os.path.join(folder, "logs")
    if not tf.io.gfile.glob(os.path.join(logs, "events.out.tfevents.*")):
        raise FileNotFoundError(
            f"{folder} is not a run: no event files in {logs}; give a --workdir"
        )
    events = event_accumulator.EventAccumulator(logs, {"tensors": 0}).Reload()
    curves = {
        kind: _curve(events, [pattern(kind, measure, column) for pattern in _PATTERNS])
        for kind in ("raw", "averaged")
    }
    curves = {kind: curve for kind, curve in curves.items() if len(curve[0])}
    if not curves:
        tags = [tag for tag in events.Tags()["tensors"] if "raw" in tag or "averaged" in tag]
        raise ValueError(
            f"{folder} has no validation of {measure} {column}; it has {', '.join(tags) or 'none'}"
        )
    return curves


def _curve(events: event_accumulator.EventAccumulator, tags: list[str]) -> tuple:
    logged = events.Tags()["tensors"]
    points = {
        event.step: float(tf.make_ndarray(event.tensor_proto))
        for tag in tags
        if tag in logged
        for event in events.Tensors(tag)
    }
    steps = sorted(points)
    return np.array(steps), np.array([points[step] for step in steps])
