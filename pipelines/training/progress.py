"""How fast a run goes, how long it waited for data, and what the steps since the last log say."""

from __future__ import annotations

import os

import numpy as np

from hourglass import metrics
from hourglass.skeleton import Skeleton

# A call lasts about so long, so that Ctrl-C and SIGTERM are answered soon on any machine.
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
        """Note a call; the first is not counted, for it traces the step."""
        if self._per_step is not None:
            self._seconds, self._waited = self._seconds + seconds, self._waited + waited
        self._per_step = seconds / steps

    @property
    def wait_percent(self) -> float:
        """Share of the training time without data, percent."""
        return 100.0 * self._waited / max(self._seconds, 1e-9)


# Of a stretch of so many seconds the device may wait so large a share for data before it is said,
# and it is said again when the share has grown by as much as WORSE.
STRETCH = 20.0
WAITING = 0.10
WORSE = 0.20
BUSY = 0.80  # of all cores' time, above which they have none left for decoding


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Waiting:
    """Says when the device waits for data, and what helps there."""

    def __init__(self, canvas: int, gigabytes: float, cached: bool):
        """For ``gigabytes`` of records with crops of ``canvas`` px, in memory if ``cached``."""
        self._canvas, self._gigabytes, self._cached = canvas, gigabytes, cached
        self._said, self._stretch = 0.0, None

    def add(self, seconds: float, waited: float, busy: float) -> str:
        """Note a call; return a sentence when there is one to be said, else "".

        The first call is not counted: it traces the step and fills the buffers.

        Args:
          seconds: of the call.
          waited: of these, without data; NaN where that is not measured.
          busy: processor seconds that this process took meanwhile, of all cores together.
        """
        if self._stretch is None:
            self._stretch = np.zeros(3)
            return ""
        self._stretch += seconds, waited, busy
        total, without, used = self._stretch
        if total < STRETCH:
            return ""
        self._stretch = np.zeros(3)
        share = without / total
        if not share > (self._said + WORSE if self._said else WAITING):
            return ""
        self._said = share
        return f"the device waits for data {share:.0%} of the time; {self._remedy(used / total)}"

    def _remedy(self, cores_used: float) -> str:
        cores = _cores()
        busy = min(1.0, cores_used / cores)
        if busy > BUSY:
            return (
                f"the {cores} cores are busy ({busy:.0%}), also with decoding crops of up to "
                f"{self._canvas} px: write records with a smaller --context or --side "
                "(docs/performance.md: what each costs), or use more cores"
            )
        if not self._cached:
            return (
                f"the {cores} cores have time left ({busy:.0%} busy), so the files are slow: keep "
                f"the records in memory with --cache_gb={self._gigabytes:.2g} or more, or copy "
                "them to a faster disk"
            )
        return (
            f"the {cores} cores have time left ({busy:.0%} busy) and the records are in memory, so "
            "this process gets less than it could use: look for other programs and for a limit "
            "of the container"
        )


class Log:
    """Sums since the last TensorBoard scalars."""

    def __init__(self, batch: int):
        """Start empty; ``batch`` is the global batch."""
        self._batch, self._steps, self._seconds, self._now = batch, 0, 0.0, 0.0
        self._sums: dict[str, np.ndarray] = {}

    def add(self, sums: dict, steps: int, seconds: float) -> None:
        """Add the sums that ``train_steps`` returned."""
        self._sums = {key: self._sums.get(key, 0.0) + value for key, value in sums.items()}
        self._steps, self._seconds = self._steps + steps, self._seconds + seconds
        self._now = self._batch * steps / max(seconds, 1e-9)

    @property
    def _speed(self) -> float:
        return self._batch * self._steps / max(self._seconds, 1e-9)

    def line(self, wait_percent: float) -> str:
        """Text for the progress bar."""
        loss = float(np.sum(self._sums["losses"])) / self._steps
        return f"loss {loss:.3g}, {self._now:.0f} images/s, data wait {wait_percent:.1f} %"

    def report(self, rate: float, skeleton: Skeleton) -> dict:
        """What ``summaries.write_training`` shows."""
        return {
            "losses": self._sums["losses"] / self._steps,
            "learning_rate": rate,
            "gradient_norm": self._sums["norm"] / self._steps,
            "images_per_second": self._speed,
            "data_wait_percent": 100.0 * self._sums["wait"] / max(self._seconds, 1e-9),
            "PCKh": metrics.summarize(self._sums["hits"], self._sums["counts"], skeleton),
        }
