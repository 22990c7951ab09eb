"""How fast a run goes, how long it waited for data, and what the steps since the last log say."""

from __future__ import annotations

import numpy as np

from hourglass import pckh
from hourglass.skeleton import Skeleton

# A call lasts about so long, so that Ctrl-C and SIGTERM are answered soon on any machine.
SECONDS_PER_CALL = 2.0


class Pace:
    """Steps per call, and the share of the run's time that the device waited for data."""

    def __init__(self, most: int):
        """Start with calls of one step; never more than ``most``."""
        self._most, self._per_step = most, None
        self._seconds = self._waited = 0.0

    def count(self, limit: int) -> int:
        """Steps for the next call: about two seconds' worth, at most ``limit``."""
        if self._per_step is None:
            return 1
        return max(1, min(limit, self._most, int(SECONDS_PER_CALL / self._per_step)))

    def add(self, steps: int, seconds: float, waited: float) -> None:
        """Note a call; the first is not counted, for it traces the step."""
        if self._per_step is not None:
            self._seconds, self._waited = self._seconds + seconds, self._waited + waited
        self._per_step = seconds / steps

    @property
    def wait_percent(self) -> float:
        """Share of the training time without data, percent."""
        return 100.0 * self._waited / max(self._seconds, 1e-9)


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
        """What ``board.write_training`` shows."""
        return {
            "losses": self._sums["losses"] / self._steps,
            "learning_rate": rate,
            "gradient_norm": self._sums["norm"] / self._steps,
            "images_per_second": self._speed,
            "data_wait_percent": 100.0 * self._sums["wait"] / max(self._seconds, 1e-9),
            "PCKh": pckh.summarize(self._sums["hits"], self._sums["counts"], skeleton),
        }
