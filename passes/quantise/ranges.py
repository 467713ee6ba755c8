"""Which range of a tensor 8 bits should cover: several published rules, and of those the one with the least error.

min-max          nothing clips
median           what the middle one of all batches reaches: whatever one broken sample does, this range stays
percentile       the tails of 0.001 % to 0.1 % clip
mse              the shrunken range with the least squared error on the data that it is chosen by
entropy          the threshold with the least Kullback–Leibler divergence (Migacz, TensorRT, 2017)

Rules look at one part of the data, the error that decides is that of another part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunec.passes.quantise.histogram import BINS, Histogram

LEVELS = 255
PERCENTILES = (99.9, 99.99, 99.999)
SHRUNK = np.geomspace(0.02, 1.0, 48)
Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """uint8 values q stand for (q − zero) · scale. `rule`: how the range was found."""

    scale: float
    zero: int
    rule: str

    @classmethod
    def of(cls, scale: float, zero: np.ndarray) -> Grid:
        """Of a quantiser with a zero point in uint8 or int8: the same numbers."""
        return cls(scale, int(zero) - int(np.iinfo(zero.dtype).min), "given")

    def rounded(self, values: Curve) -> Curve:
        """What `values` become."""
        found: Curve = (np.clip(np.rint(values / self.scale) + self.zero, 0, LEVELS) - self.zero) * self.scale
        return found


def choose_grid(fit: Histogram, held_out: Histogram) -> Grid:
    """The grid with the least squared error on `held_out`, of those that the rules find on `fit`."""
    if fit.top == 0:
        return Grid(1.0, 0, "min-max")
    values, counts = held_out.values(), held_out.counts
    found = [_grid(low, high, rule) for rule, low, high in _ranges(fit)]
    if not counts.sum() or held_out.top == 0:
        return found[0]
    return min(found, key=lambda grid: float(counts @ (grid.rounded(values) - values) ** 2))


def min_max(seen: Histogram) -> Grid:
    """The grid on which nothing clips."""
    return _grid(seen.low, seen.high, "min-max") if seen.top else Grid(1.0, 0, "min-max")


def _ranges(seen: Histogram) -> Iterator[tuple[str, float, float]]:
    low, high = seen.low, seen.high
    yield "min-max", low, high
    least, most = np.median(seen.ends, axis=0)
    yield "median", min(float(least), 0.0), max(float(most), 0.0)
    values, counts = seen.values(), seen.counts
    running = np.cumsum(counts) / counts.sum()
    for percent in PERCENTILES:
        tail = (1 - percent / 100) / (2 if low < 0 else 1)
        first = values[np.searchsorted(running, tail)] if low < 0 else 0.0
        last = values[min(int(np.searchsorted(running, 1 - tail)), 2 * BINS - 1)]
        yield f"percentile {percent:g}", max(low, min(first, 0.0)), min(high, max(last, 0.0))
    errors = [float(counts @ (_grid(low * s, high * s, "").rounded(values) - values) ** 2) for s in SHRUNK]
    best = float(SHRUNK[int(np.argmin(errors))])
    yield "mse", low * best, high * best
    top = _entropy(np.abs(values), counts)
    yield "entropy", max(low, -top), min(high, top)


def _grid(low: float, high: float, rule: str) -> Grid:
    """Zero is a value of it, exactly: padding, ReLU and pruned channels stay what they are."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-30) / LEVELS))
    return Grid(scale, int(np.clip(np.rint(-low / scale), 0, LEVELS)), rule)


def _entropy(sizes: Curve, counts: Curve) -> float:
    """The threshold on |x|: magnitudes are folded onto one side and cut after a multiple of 128 levels."""
    folded = counts[BINS:] + counts[:BINS][::-1]
    edge = sizes[BINS:] + sizes[BINS]  # upper ends of the bins
    levels, best, chosen = 128, np.inf, BINS
    for stop in range(levels, BINS + 1, 16):
        wanted = folded[:stop].copy()
        wanted[-1] += folded[stop:].sum()
        kept = folded[:stop]
        group = np.minimum(np.arange(stop) * levels // stop, levels - 1)
        present = kept > 0
        total = np.bincount(group, weights=kept, minlength=levels)
        places = np.bincount(group, weights=present, minlength=levels)
        spread = np.where(present, (total / np.maximum(places, 1))[group], 0.0)
        if not spread.sum() or not wanted.sum():
            continue
        p, q = wanted / wanted.sum(), spread / spread.sum()
        inside = (p > 0) & (q > 0)
        lost = float((p[inside] * np.log(p[inside] / q[inside])).sum()) + 10.0 * float(p[(p > 0) & (q == 0)].sum())
        if lost < best:
            best, chosen = lost, stop
    return float(edge[chosen - 1])
