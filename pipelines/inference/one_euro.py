"""Smoother joints in videos: the One Euro filter (Casiez, Roussel and Vogel, CHI 2012)."""

from __future__ import annotations

import math

import numpy as np


def _weight(cutoff: np.ndarray | float, rate: float) -> np.ndarray | float:
    """Weight of the new value in a low-pass filter; cutoff and rate in Hz."""
    return 1.0 / (1.0 + rate / (2.0 * math.pi * cutoff))


class OneEuro:
    """A low-pass filter of points with a cutoff that rises with their speed.

    Resting joints stop jittering, fast ones do not lag. As in the paper's algorithm 1, but with the
    speed of the point instead of each coordinate's: filtering does not depend on the direction.
    """

    def __init__(self, rate: float, cutoff: float = 1.0, gain: float = 5.0, speed: float = 1.0):
        """Start without a previous frame.

        Args:
          rate: frames per second.
          cutoff: Hz, of points at rest; lower is smoother.
          gain: Hz per crop side per second; higher lags less.
          speed: Hz, cutoff of the filter of the speed itself.
        """
        if not all(0 < value < math.inf for value in (rate, cutoff, speed)) or gain < 0:
            raise ValueError(f"rate {rate}, cutoff {cutoff} and speed {speed} must be positive Hz")
        self._rate, self._cutoff, self._gain, self._speed = rate, cutoff, gain, speed
        self._points = self._velocity = None

    def __call__(self, points: np.ndarray, side: float = 1.0) -> np.ndarray:
        """Filtered [J, 2] float64 of the next frame's points [J, 2] px.

        Args:
          points: px. The first frame's are returned unchanged, and so are those of a frame with
            another J, which restarts the filter.
          side: px, the person's crop side, the unit of speeds: near and far people are smoothed
            equally.
        """
        points = np.asarray(points, np.float64)
        if self._points is None or self._points.shape != points.shape:
            self._points, self._velocity = points, np.zeros_like(points)
            return points
        velocity = (points - self._points) * (self._rate / side)
        self._velocity += _weight(self._speed, self._rate) * (velocity - self._velocity)
        speeds = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        weight = _weight(self._cutoff + self._gain * speeds, self._rate)
        self._points = self._points + weight * (points - self._points)
        return self._points
