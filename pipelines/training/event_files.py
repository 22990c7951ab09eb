"""Tags of a run's validation in its event files, and the curves read back."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator


def validation_tag(kind: str, measure: str = "PCKh@0.5", column: str = "mean14") -> str:
    """The tag of a validation's number.

    Args:
      kind: of weights, "raw" or "averaged".
      measure: e.g. "PCKh@0.5", "PCKh@0.1", "AUC".
      column: a joint group or mean, e.g. "mean14".
    """
    if (measure, column) == ("PCKh@0.5", "mean14"):
        return f"overview/PCKh@0.5 {kind}"  # on TensorBoard's first page
    return f"validation {kind}/{measure} {column}"


_PATTERNS = ("validation {} {}/{}".format, validation_tag)  # earlier versions', and today's


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
    curves = {
        kind: _curve(events, [pattern(kind, measure, column) for pattern in _PATTERNS])
        for kind in ("raw", "averaged")
    }
    curves = {kind: curve for kind, curve in curves.items() if len(curve[0])}
    if not curves:
        there = [tag for tag in events.Tags()["tensors"] if "raw" in tag or "averaged" in tag]
        raise ValueError(
            f"{folder} has no validation of {measure} {column}; "
            f"it has {', '.join(there) or 'none at all'}"
        )
    return curves


def _curve(events: event_accumulator.EventAccumulator, tags: list[str]) -> tuple:
    there = events.Tags()["tensors"]
    points = {
        one.step: float(tf.make_ndarray(one.tensor_proto))
        for tag in tags
        if tag in there
        for one in events.Tensors(tag)
    }
    steps = sorted(points)
    return np.array(steps), np.array([points[step] for step in steps])
