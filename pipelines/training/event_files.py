"""Read a run's validation curves from its event files."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator


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
