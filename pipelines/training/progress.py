"""A run's speed, its data wait, and the sums logged since the last TensorBoard scalars."""

from __future__ import annotations

import math
import os

import numpy as np

from hourglass import metrics
from hourglass.skeleton import Skeleton

# Target length of a call, short enough to react quickly to Ctrl-C and SIGTERM on any machine.
SECONDS_PER_CALL = 2.0


class Pace:
    """Steps per call, and the share of the run's time that the device waited for data."""

    def __init__(self):
        """Start with a call of one step, which traces."""
        self._per_step = None
        self._seconds = self._waited = 0.0

    def count(self, limit: int) -> int:
        """Steps for the next call: about two seconds' worth, at most ``limit``."""
        if self._per_step is None:
            return 1
        return max(1, min(limit, int(SECONDS_PER_CALL / self._per_step)))

    def add(self, steps: int, seconds: float, waited: float) -> None:
        """Record a call; the first is not counted, because it traces the step."""
        if self._per_step is not None:
            self._seconds, self._waited = self._seconds + seconds, self._waited + waited
        self._per_step = seconds / steps

    @property
    def wait_percent(self) -> float:
        """Share of the training time without data, percent."""
        return 100.0 * self._waited / max(self._seconds, 1e-9)


def wait_text(percent: float, digits: int = 1) -> str:
    """Text of a data wait in percent; NaN was not measured, as in deterministic runs."""
    return "data wait not measured" if math.isnan(percent) else f"data wait {percent:.{digits}f} %"


WINDOW_SECONDS = 20.0  # over which the data wait is averaged
WARN_SHARE = 0.10  # of a window without data, above which a warning is printed
WARN_INCREASE = 0.20  # over the last warning's share, above which another one is printed
BUSY_SHARE = 0.80  # of all cores' time, above which none is left for decoding


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class DataWait:
    """Warns when the device waits for data, with a remedy."""

    def __init__(self, canvas: int, gigabytes: float, cached: bool):
        """For ``gigabytes`` of records with crops of ``canvas`` px, in memory if ``cached``."""
        self._canvas, self._gigabytes, self._cached = canvas, gigabytes, cached
        self._warned_share, self._window = 0.0, None

    def add(self, seconds: float, waited: float, busy: float) -> str:
        """Record a call; return a warning, or "".

        The first call is not counted: it traces the step and fills the buffers.

        Args:
          seconds: length of the call.
          waited: seconds of it without data; NaN if not measured.
          busy: CPU seconds of this process during the call, over all cores.
        """
        if self._window is None:
            self._window = np.zeros(3)
            return ""
        self._window += seconds, waited, busy
        total, without, used = self._window
        if total < WINDOW_SECONDS:
            return ""
        self._window = np.zeros(3)
        share = without / total
        limit = self._warned_share + WARN_INCREASE if self._warned_share else WARN_SHARE
        if not share > limit:
            return ""
        self._warned_share = share
        return f"the device waits for data {share:.0%} of the time; {self._remedy(used / total)}"

    def _remedy(self, cores_used: float) -> str:
        cores = _cores()
        busy = min(1.0, cores_used / cores)
        if busy > BUSY_SHARE:
            return (
                f"the {cores} cores are busy ({busy:.0%}), partly decoding crops of up to "
                f"{self._canvas} px: write records with a smaller --context or --side "
                "(docs/performance.md lists their cost), or use more cores"
            )
        if not self._cached:
            return (
                f"the {cores} cores have time left ({busy:.0%} busy), so the files are slow: keep "
                f"the records in memory with --cache_gb={self._gigabytes:.2g} or more, or copy "
                "them to a faster disk"
            )
        return (
            f"the {cores} cores have time left ({busy:.0%} busy) and the records are in memory, so "
            "something else holds this process back: check for other programs and for a CPU limit "
            "of the container"
        )


class Log:
    """Sums since the last TensorBoard scalars."""

    def __init__(self, batch: int):
        """Start empty; ``batch`` is the global batch."""
        self._batch, self._steps, self._seconds, self._speed_now = batch, 0, 0.0, 0.0
        self._sums: dict[str, np.ndarray] = {}

    def add(self, sums: dict, steps: int, seconds: float) -> None:
        """Add the sums that ``train_steps`` returned."""
        self._sums = {key: self._sums.get(key, 0.0) + value for key, value in sums.items()}
        self._steps, self._seconds = self._steps + steps, self._seconds + seconds
        self._speed_now = self._batch * steps / max(seconds, 1e-9)

    @property
    def _speed(self) -> float:
        return self._batch * self._steps / max(self._seconds, 1e-9)

    def line(self, wait_percent: float) -> str:
        """Text for the progress bar."""
        loss = float(np.sum(self._sums["losses"])) / self._steps
        return f"loss {loss:.3g}, {self._speed_now:.0f} images/s, {wait_text(wait_percent)}"

    def fit(self, skeleton: Skeleton) -> tuple[float, float]:
        """Mean loss and mean14 PCKh@0.5 of the training people; NaN before the first step."""
        if not self._steps:
            return math.nan, math.nan
        hits = metrics.summarize(self._sums["hits"], self._sums["counts"], skeleton)
        return float(np.sum(self._sums["losses"])) / self._steps, float(hits["mean14"])

    def scalars(self, learning_rate: float, skeleton: Skeleton) -> dict:
        """The values for ``summaries.write_training``."""
        return {
            "losses": self._sums["losses"] / self._steps,
            "learning_rate": learning_rate,
            "gradient_norm": self._sums["norm"] / self._steps,
            "images_per_second": self._speed,
            "data_wait_percent": 100.0 * self._sums["wait"] / max(self._seconds, 1e-9),
            "PCKh": metrics.summarize(self._sums["hits"], self._sums["counts"], skeleton),
        }
