"""Weights on a grid: k · step with a whole k, |k| ≤ levels, and one step for each output. 0 is always on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.passes.solve.hessian import Double

SHRUNK = np.linspace(0.6, 1.0, 17)
"""Shares of a row's largest magnitude that the grid may reach: what is beyond is clipped."""


@dataclass(frozen=True)
class WeightGrid:
    """`steps` [m] in plain coordinates, values of float32; `levels`: 127 for 8 bits."""

    steps: Double
    levels: int

    def nearest(self, weight: Double) -> Double:
        """What weights [m, n], or one column [m], become."""
        steps = self.steps.reshape(-1, *(1,) * (weight.ndim - 1))
        whole = np.clip(np.rint(weight / steps), -self.levels, self.levels)
        found: Double = whole * steps + 0.0  # no negative zeros
        return found


def grid_for(
    weight: Double, levels: int, *, importance: Double | None = None, least: Double | float = 0.0
) -> WeightGrid:
    """The grid of each row [m, n] with the least squared rounding error.

    Squares in column j count `importance`[j] times. No step is below `least` [m]. A row of zeros has step 1.
    """
    tops = np.abs(weight).max(axis=1, initial=0.0)
    best, steps = np.full(len(weight), np.inf), np.ones(len(weight))
    for share in SHRUNK:
        own = _single(np.where(tops > 0, tops * share / levels, 1.0))
        squares = np.square(WeightGrid(own, levels).nearest(weight) - weight)
        error = squares.sum(axis=1) if importance is None else squares @ importance
        steps = np.where(error < best, own, steps)
        best = np.minimum(error, best)
    steps = np.maximum(np.maximum(steps, least), np.finfo(np.float32).tiny)
    return WeightGrid(_single(steps), levels)


def _single(steps: Double) -> Double:
    found: Double = steps.astype(np.float32).astype(np.float64)
    return found
