"""Filter pruning via geometric median: the filter that the others can replace best goes first.

    I(c) = Σ_k ‖F_c − F_k‖₂

over the producers of a group, each divided by its mean, then averaged. A channel with several rows in one producer
(grouped convolution, attention head) is their concatenation. He et al. (arXiv 1811.00250).
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Needs, ScoreContext
from prunec.criteria.magnitude import mean_of_normalised, weights
from prunec.graph import Group

BLOCK = 512
"""Rows of the distance matrix in memory at once."""


class GeometricMedian:
    """Distances among the rows of the producers."""

    name = "fpgm"
    needs: frozenset[Needs] = frozenset()
    data_free = True

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size], mean 1 where every producer makes every channel."""
        producers = (m for m in weights(group, context) if m.role == "producer")
        parts = (stack_rows(context.rows(m), m.index) for m in producers)
        return mean_of_normalised(((channels, distance_sums(filters)) for channels, filters in parts), group.size)


def stack_rows(rows: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channels that occur in `index`, and a row for each: its positions' rows, concatenated and zero-padded."""
    positions = np.flatnonzero(index >= 0)
    positions = positions[np.argsort(index[positions], kind="stable")]
    channels, row, counts = np.unique(index[positions], return_inverse=True, return_counts=True)
    slot = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
    stacked = np.zeros((len(channels), int(counts.max()), rows.shape[1]), np.float64)
    stacked[row, slot] = rows[positions]
    return channels, stacked.reshape(len(channels), -1)


def distance_sums(filters: np.ndarray) -> np.ndarray:
    """Σ_k ‖F_c − F_k‖ for every row c of `filters` [n, d]."""
    squared = np.einsum("cd,cd->c", filters, filters)
    sums = np.zeros(len(filters))
    for start in range(0, len(filters), BLOCK):
        block = slice(start, start + BLOCK)
        distance = squared[block, None] + squared[None, :] - 2 * filters[block] @ filters.T
        sums[block] = np.sqrt(np.maximum(distance, 0)).sum(axis=1)
    return sums
