"""A run's event files: writing one, the tags of its validation, reading the curves."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing import event_accumulator

from pipelines.io import check_regular

_START = "events.out.tfevents."


class EventFile:
    """A new event file for ``tf.summary`` that is read back after every flush.

    TensorFlow's writer does not always report a full disk: it drops what does not fit.
    """

    def __init__(self, folder: str):
        """Create it in ``folder``; OSError or TensorFlow's error if that is impossible."""
        before = _names(folder)
        self._writer, self._step = tf.summary.create_file_writer(folder), 0
        (name,) = _names(folder) - before
        self._path, self._checked = os.path.join(folder, name), 0

    @contextlib.contextmanager
    def as_default(self, step: int) -> Iterator[None]:
        """Context in which ``tf.summary`` writes into this file; OSError if it cannot."""
        self._step = step
        try:
            with self._writer.as_default(step=step):
                yield
        except tf.errors.OpError as error:
            if self._path not in error.message:
                raise
            raise OSError(self._problem()) from error

    def flush(self) -> None:
        """Flush what was written; OSError if it is not in the file."""
        with self.as_default(self._step):  # whose end flushes
            tf.summary.experimental.write_raw_pb(b"")  # an event without values: it must be last
        with tf.io.gfile.GFile(self._path, "rb") as file:
            file.seek(self._checked)
            data = file.read()
        last = _last_event(data)
        if last is None or last.step != self._step or last.summary.value:
            raise OSError(self._problem())
        self._checked += len(data)

    def _problem(self) -> str:
        return (
            f"cannot write {self._path}: the last events are not in it, as on a full disk; make "
            "space. What was saved before is whole: the same command resumes from it"
        )

    def close(self) -> None:
        """Flush, and close the file; OSError as ``flush``."""
        self.flush()
        self._writer.close()


def _names(folder: str) -> set[str]:
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    return {name for name in names if name.startswith(_START)}


def _last_event(data: bytes) -> tf.compat.v1.Event | None:
    """The last event of records; None without any, or where they end in the middle of one."""
    start, size = 0, 0
    while len(data) > start + size:
        start += size
        if len(data) < start + 12:
            return None
        # A record: its event's length and a checksum, the event, a checksum.
        size = 12 + struct.unpack_from("<Q", data, start)[0] + 4
    if not size or len(data) != start + size:
        return None
    try:
        return tf.compat.v1.Event.FromString(data[start + 12 : -4])
    except DecodeError:
        return None


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
        was validated twice, the later result counts. What follows a damage in one of them is
        missing: that is printed.
      measure: e.g. "PCKh@0.5", "PCKh@0.1", "AUC".
      column: a joint group or mean, e.g. "mean14".

    Returns:
      "raw" and "averaged", those that were validated -> (steps [n], percent [n]), ascending.

    Raises:
      FileNotFoundError: no event files in the folder.
      ValueError: they hold no validation of this measure and column; lists those they do hold.
    """
    logs = os.path.join(folder, "logs")
    paths = [os.path.join(logs, name) for name in sorted(_names(logs))]
    if not paths:
        raise FileNotFoundError(
            f"{folder} is not a run: no event files in {logs}; give a --workdir"
        )
    damaged = [text for text in map(_damage, paths) if text]
    for text in damaged:
        print(text, file=sys.stderr)
    events = event_accumulator.EventAccumulator(logs, {"tensors": 0}).Reload()
    curves = {
        kind: _curve(events, [pattern(kind, measure, column) for pattern in _PATTERNS])
        for kind in ("raw", "averaged")
    }
    curves = {kind: curve for kind, curve in curves.items() if len(curve[0])}
    if not curves:
        tags = [tag for tag in events.Tags()["tensors"] if "raw" in tag or "averaged" in tag]
        raise ValueError(
            f"{folder} has no validation of {measure} {column}; {', '.join(paths[:3])} hold "
            f"{', '.join(tags) or 'none'}" + "".join(f". {text}" for text in damaged)
        )
    return curves


def _damage(path: str) -> str:
    """Where an event file is damaged, or "": TensorBoard's reader ends there without a word."""
    check_regular(path)
    whole = size = 0
    with contextlib.suppress(tf.errors.DataLossError):
        for event in tf.data.TFRecordDataset(path):
            whole, size = whole + 1, size + 12 + len(event.numpy()) + 4
    # The sizes tell of a cut inside a record's first 12 bytes, which TensorFlow takes for the end.
    if size == tf.io.gfile.stat(path).length:
        return ""
    return f"{path} is damaged after {whole} events; what follows in it is missing here"


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
