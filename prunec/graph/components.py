"""The solve at the end of an analysis: unions → classes, and which axis of a block the classes go along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def components(count: int, edges: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, np.ndarray]:
    """Number of classes of `count` ids that `edges` unite, and the class of each id, in order of first appearance."""
    if count == 0:
        return 0, np.zeros(0, np.int64)
    rows = np.concatenate([a for a, _ in edges] or [np.zeros(0, np.int64)])
    cols = np.concatenate([b for _, b in edges] or [np.zeros(0, np.int64)])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), shape=(count, count))
    number, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    rank = np.empty(number, np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(number)
    return int(number), rank[labels]


def box_axis(classes: np.ndarray) -> int | None:
    """The axis that alone decides about the classes of a block (they are equal along all others), or None."""
    for axis in range(classes.ndim):
        rows = np.moveaxis(classes, axis, 0).reshape(classes.shape[axis], -1)
        if (rows == rows[:, :1]).all():
            return axis
    return None
