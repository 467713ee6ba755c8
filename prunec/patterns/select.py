"""Exact counts with ties broken by position, so that a mask is a function of the numbers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]

RANKED_UP_TO = 8
"""Groups up to this size are ranked by comparing all pairs, longer ones by sorting."""


def kept_count(size: int, level: float) -> int:
    """How many of `size` units stay at sparsity `level`: never more than (1 − level)·size, at least one."""
    exact = size * (1.0 - level)
    return max(1, int(np.floor(exact + 1e-9 * max(size, 1)))) if size else 0


def top_k(values: Array, k: int) -> Mask:
    """The k largest of all values, whatever the shape; among equal ones the first stay."""
    flat = values.reshape(-1)
    mask: Mask
    if k >= flat.size:
        return np.ones(values.shape, bool)
    if k <= 0:
        return np.zeros(values.shape, bool)
    threshold = np.partition(flat, flat.size - k)[flat.size - k]
    mask = flat > threshold
    equal = np.flatnonzero(flat == threshold)
    mask[equal[: k - int(mask.sum())]] = True
    mask = mask.reshape(values.shape)
    return mask


def top_k_rows(values: Array, k: int) -> Mask:
    """The k largest along the last axis; among equal ones the first stay."""
    size = values.shape[-1]
    if k >= size:
        return np.ones(values.shape, bool)
    if size <= RANKED_UP_TO:
        return _by_rank(values, k)
    order = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    mask = np.zeros(values.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


def _by_rank(values: Array, k: int) -> Mask:
    """Rank = how many beat an entry: those that are larger, and equal ones that come first."""
    size = values.shape[-1]
    lanes = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    ranks = np.zeros(lanes.shape, np.uint8)
    for i in range(size):
        for j in range(i + 1, size):
            later = lanes[j] > lanes[i]
            ranks[i] += later
            ranks[j] += ~later
    mask: Mask = np.moveaxis(ranks < k, 0, -1)
    return mask
