"""How the values of one tensor are spread, in one pass over any number of batches and bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 2048
"""On each side of zero."""
AT_ONCE = 1 << 16
"""Values of an array that are counted; more are sampled, but none is left out of `low` and `high`."""


class Histogram:
    """Counts of finite values in 2 · BINS equal bins on [−top, top); `top` doubles when a larger value comes.

    `ends` of every array that was added: one huge value makes bins too wide for all others, but not those of others.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.float64] = np.zeros(2 * BINS)
        self.top = 0.0
        self.low = self.high = 0.0
        self.ends: list[tuple[float, float]] = []

    def add(self, array: np.ndarray, rng: np.random.Generator) -> bool:
        """Count float values of any shape; False where one is not finite, and then nothing is counted."""
        values = array.reshape(-1)
        if not values.size:
            return True
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            return False
        self.ends.append((low, high))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))
        if self.top == 0:
            self.counts[BINS] += values.size
            return True
        taken = values if values.size <= AT_ONCE else values[rng.integers(0, values.size, AT_ONCE)]
        places = np.floor(taken.astype(np.float64) / self.top * BINS).astype(np.int64) + BINS
        counted = np.bincount(np.clip(places, 0, 2 * BINS - 1), minlength=2 * BINS)
        self.counts += counted * (values.size / taken.size)
        return True

    def values(self) -> npt.NDArray[np.float64]:
        """What each bin stands for: its middle; exact zeros, which ReLU makes many of, are the first above zero."""
        middles: npt.NDArray[np.float64] = (np.arange(2 * BINS, dtype=np.float64) - BINS + 0.5) * (self.top / BINS)
        return middles

    def _reach(self, value: float) -> None:
        if value <= self.top:
            return
        if self.top == 0:
            zeros, self.top = self.counts[BINS], value * (1 + 1e-6)
            self.counts[:] = 0
            self.counts[BINS] = zeros
            return
        while self.top < value:
            pairs = self.counts.reshape(BINS, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 2), pairs, np.zeros(BINS // 2)])
            self.top *= 2
