"""The lower convex hull of a curve: what can be had by going all of a stretch or none of it."""

from __future__ import annotations

import numpy as np


def hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the hull of the points (x, y) at every x, float64 [n]; x rises."""
    corners = [0]
    for i in range(1, len(x)):
        while len(corners) > 1 and _is_above(x, y, corners[-2], corners[-1], i):
            corners.pop()
        corners.append(i)
    return np.asarray(np.interp(x, x[corners], y[corners]))


def _is_above(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> bool:
    """Whether point b lies on or above the line from a to c."""
    return bool((y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a]))
