"""Symmetric matrices of which LAPACK reads and writes one triangle."""

from __future__ import annotations

import numpy as np

ROWS = 256
"""Of a matrix that are copied at a time."""


def mirror(matrix: np.ndarray) -> None:
    """Copy the lower triangle to the upper one, in place."""
    for first in range(0, len(matrix), ROWS):
        block = matrix[first:, first : first + ROWS].copy()
        corner = np.tril(block[: block.shape[1]])
        block[: block.shape[1]] = corner + np.tril(corner, -1).T
        matrix[first : first + ROWS, first:] = block.T
        matrix[first:, first : first + ROWS] = block
