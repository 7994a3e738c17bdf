"""The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): still where the signal is, without lag when it moves."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class OneEuro:
    """Smooths an array over time; all its numbers share one cut-off, so that a face's points move together."""

    def __init__(self, min_cutoff_hz: float, beta: float, speed_cutoff_hz: float = 1.0) -> None:
        """`beta` raises the cut-off by that many Hz for each unit a second of speed."""
        self._min_cutoff, self._beta, self._speed_cutoff = min_cutoff_hz, beta, speed_cutoff_hz
        self._value: NDArray[np.float64] | None = None
        self._speed: NDArray[np.float64] | None = None

    def step(self, value: NDArray[np.float64], passed_s: float, unit: float) -> NDArray[np.float64]:
        """The smoothed value after `passed_s` seconds; speeds are measured in `unit`s of the value."""
        if self._value is None or self._speed is None or passed_s <= 0:
            self._value, self._speed = value, np.zeros_like(value)
            return value
        speed = (value - self._value) / passed_s
        self._speed = self._speed + _alpha(self._speed_cutoff, passed_s) * (speed - self._speed)
        fastest = float(np.sqrt((self._speed**2).sum(-1)).mean()) / unit
        alpha = _alpha(self._min_cutoff + self._beta * fastest, passed_s)
        self._value = self._value + alpha * (value - self._value)
        return self._value


def _alpha(cutoff_hz: float, passed_s: float) -> float:
    return 1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff_hz * passed_s))
