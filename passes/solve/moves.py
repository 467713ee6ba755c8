"""Single weights that move on their grid to where the quadratic is least while all others stand still.

Coordinate descent over the columns of tr((W − T) A (W − T)ᵀ), as in QuantEase (arXiv 2309.01885). It never raises it.
"""

from __future__ import annotations

import numpy as np

from prunec.passes.solve.grid import WeightGrid
from prunec.passes.solve.hessian import Double
from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask

ROUNDS = 3
"""Times that all columns are gone over at most."""
BLOCK = 128
Within = tuple[Double, Double]
"""The least and the largest value [m, n] that each weight may take, on the grid and in plain coordinates."""


def settled(
    q: Quadratic, weight: Double, mask: Mask, grid: WeightGrid, within: Within | None = None, rounds: int = ROUNDS
) -> Double:
    """Scaled `weight` [m, n] on the grid with single entries moved, inside the mask and `within`, until none gains."""
    matrix = q.matrix()
    diagonal = np.diagonal(matrix)
    found: Double = weight.copy()
    slope = (found - q.target) @ matrix
    for _ in range(rounds):
        moved = False
        for begin in range(0, found.shape[1], BLOCK):
            part = slice(begin, begin + BLOCK)
            own, block = slope[:, part].copy(), matrix[part, part]
            changes = np.zeros_like(own)
            for j in range(own.shape[1]):
                i = begin + j
                wanted = grid.nearest((found[:, i] - own[:, j] / diagonal[i]) / q.scale[i])
                if within is not None:
                    wanted = np.clip(wanted, within[0][:, i], within[1][:, i])
                change = np.where(mask[:, i], wanted * q.scale[i] - found[:, i], 0.0)
                if change.any():
                    own += np.outer(change, block[j])
                    found[:, i] += change
                    changes[:, j] = change
                    moved = True
            slope += changes @ matrix[part]
        if not moved:
            break
    return found
