"""Remove a layer's inputs one channel after the other, refitting what is left by least squares each time.

With C = Cov(x), P = C⁻¹ and A = WᵀW for a layer W x, removing the positions J of a channel costs

    tr(A_JJ [P_JJ]⁻¹)    and leaves    P − P_:J [P_JJ]⁻¹ P_J:    A − U A_J: − A_:J Uᵀ + U A_JJ Uᵀ,  U = P_:J [P_JJ]⁻¹

(A is that of the refitted weights). The costs add up to the joint error tr(W_R [(C⁻¹)_RR]⁻¹ W_Rᵀ) of all that were
removed, R, so one run gives the error at every width (Hassibi & Stork 1993; in this order: OBC, arXiv 2208.11580).
A has the size of C however many outputs there are. Updates are kept as thin factors and carried out `DELAY` positions
at a time, exactly: O(n³) in products of matrices for a whole run over n positions, O(n²) in everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Double = npt.NDArray[np.float64]
DELAY = 64
"""Positions whose updates are carried out together."""
ROWS = 256
"""Rows that they are carried out on at a time."""
SHRUNK = 0.8
"""Share of positions that are left at which the others leave the matrices."""


@dataclass(frozen=True)
class Problem:
    """One covariance and what sums over it.

    inverse: C⁻¹ [n, n], of the damped covariance
    gram:    Σ over consumers of WᵀW [n, n], each in its own unit (one over its output variance makes losses relative)
    channel: int64 [n], the channel of each position, -1 for positions that stay
    """

    inverse: Double
    gram: Double
    channel: np.ndarray


def eliminate(
    problems: Sequence[Problem], size: int, count: int, order: np.ndarray | None = None, stays: np.ndarray | None = None
) -> tuple[np.ndarray, Double]:
    """Remove `count` of `size` channels from all problems at once: the cheapest first, or in the given `order`.

    The problems' matrices are overwritten.
    Channels marked in `stays` (bool [size]) are not removed. Returns the channels in the order in which they went,
    int64 [count], and by how much each problem's error rose with each, float64 [count, problems], never below 0.
    """
    states = [_State(problem, size) for problem in problems]
    open_ = np.ones(size, bool) if stays is None else ~stays
    gone, rises = np.zeros(count, np.int64), np.zeros((count, len(states)))
    for step in range(count):
        costs = np.array([state.costs() for state in states])
        chosen = int(np.argmin(np.where(open_, costs.sum(axis=0), np.inf))) if order is None else int(order[step])
        gone[step], rises[step] = chosen, np.maximum(costs[:, chosen], 0.0)
        open_[chosen] = False
        for state in states:
            state.remove(chosen)
    return gone, rises


class _State:
    """One problem on the way, in its own matrices.

    `_places` [size, p]: positions of every channel, `_there`: which of them are; the others point to position 0.
    """

    def __init__(self, problem: Problem, size: int) -> None:
        counts = np.bincount(problem.channel[problem.channel >= 0], minlength=size)
        self._width = max(int(counts.max(initial=0)), 1)
        self._places = np.zeros((size, self._width), np.int64)
        self._there = np.arange(self._width) < counts[:, None]
        self._places[self._there] = np.argsort(problem.channel, kind="stable")[(problem.channel < 0).sum() :]
        self._inverse, self._gram = problem.inverse, problem.gram
        self._left = np.ones(len(problem.channel), bool)
        both = (self._places[:, :, None], self._places[:, None, :])
        there = self._there[:, :, None] & self._there[:, None, :]
        self._pivots = np.where(there, self._inverse[both], np.eye(self._width))
        self._weights = np.where(there, self._gram[both], 0.0)
        self._buffer = np.zeros((3, len(self._left), DELAY + self._width))
        self._pending = 0

    def costs(self) -> Double:
        """tr(A_JJ [P_JJ]⁻¹) of every channel [size]; of those that are gone, 0."""
        if self._width == 1:
            return np.asarray(self._weights[:, 0, 0] / self._pivots[:, 0, 0])
        return np.asarray(np.trace(np.linalg.solve(self._pivots, self._weights), axis1=1, axis2=2))

    def remove(self, channel: int) -> None:
        """Carry the removal into P and A."""
        places = self._places[channel][self._there[channel]]
        if not len(places):
            return
        roots, lefts, rights = self._buffer[:, : len(self._left), : self._pending]
        column = self._inverse[places].T - roots @ roots[places].T
        gram = self._gram[places].T - lefts @ rights[places].T - rights @ lefts[places].T
        pivot = column[places]
        upper = np.linalg.cholesky((pivot + pivot.T) / 2)
        root = np.linalg.solve(upper, column.T).T
        left = np.linalg.solve(upper.T, root.T).T
        right = gram - left @ gram[places] / 2
        self._there[channel], self._left[places] = False, False
        self._update_blocks(root, left, right)
        self._pivots[channel], self._weights[channel] = np.eye(self._width), 0.0
        self._buffer[:, : len(self._left), self._pending : self._pending + len(places)] = root, left, right
        self._pending += len(places)
        if self._pending >= DELAY:
            self._apply()

    def _update_blocks(self, root: Double, left: Double, right: Double) -> None:
        there = self._there[:, :, None]
        own_root, own_left, own_right = (own[self._places] * there for own in (root, left, right))
        self._pivots -= own_root @ own_root.transpose(0, 2, 1)
        cross = own_left @ own_right.transpose(0, 2, 1)
        self._weights -= cross + cross.transpose(0, 2, 1)

    def _apply(self) -> None:
        roots, lefts, rights = self._buffer[:, : len(self._left), : self._pending]
        for first in range(0, len(roots), ROWS):  # a product of all rows at once is another matrix of the layer's size
            own = slice(first, first + ROWS)
            self._inverse[own] -= roots[own] @ roots.T
            self._gram[own] -= lefts[own] @ rights.T + rights[own] @ lefts.T
        self._pending = 0
        if self._left.mean() <= SHRUNK:
            self._inverse, self._gram = (_shrunk(matrix, self._left) for matrix in (self._inverse, self._gram))
            self._places = (np.cumsum(self._left) - 1)[self._places]
            self._places[~self._there] = 0
            self._left = self._left[self._left]


def _shrunk(matrix: Double, left: np.ndarray) -> Double:
    """The rows and columns that are left, in the same memory."""
    places = np.flatnonzero(left)
    flat, count = matrix.reshape(-1), len(places)
    for row, place in enumerate(places):  # what is written ends in front of what is still to be read
        flat[row * count : (row + 1) * count] = matrix[place, places]
    return flat[: count * count].reshape(count, count)
