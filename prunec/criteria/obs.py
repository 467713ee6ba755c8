"""Optimal Brain Surgeon, on channels: the error left after the other channels made up for the removed one.

With C = Cov(x) (damped), removing the positions P of a channel and refitting the rest by least squares costs

    I(c) = tr(W_P [(C⁻¹)_PP]⁻¹ W_Pᵀ)        (one position: ‖W_:j‖² / (C⁻¹)_jj)

summed over all consumers; conv: every kernel position is a layer of its own over the same channels. Hassibi & Stork
(1993); the pooled form: OBSPA (arXiv 2403.18955).

Widths of queries and keys, which no weight consumes, are scored by what the scores lose (`products`).

Two simplifications, each said in a note. Where no covariance was kept (the layer is too wide), the compensation is not
known and Var(x_j)·‖W_:j‖², an upper bound in the same units, takes its place. Where a channel has several positions
(a flattened map, an attention head) on an axis longer than `BLOCK_LIMIT`, its positions are scored one by one.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Columns, Needs, ScoreContext, per_channel, row_norms
from prunec.criteria.flap import fluctuation
from prunec.criteria.magnitude import no_consumer
from prunec.criteria.products import product_saliency
from prunec.graph import Group

BLOCK_LIMIT = 2048
"""Longest axis whose whole inverse covariance is taken; above it the diagonal has to do."""


class OptimalBrainSurgeon:
    """Least-squares saliency."""

    name = "obs"
    needs: frozenset[Needs] = frozenset({"covariance"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        columns = context.columns(group)
        if not columns:
            found = product_saliency(group, context)
            return no_consumer(self.name, group, context) if found is None else found
        return np.asarray(np.sum([saliency(c, group.size, context) for c in columns], axis=0))


def saliency(columns: Columns, size: int, context: ScoreContext) -> np.ndarray:
    """What one consumer loses with each channel, float64 [size]."""
    seen = context.layer(columns.consumer)
    where = columns.consumer.node
    if seen.inverse_diag is None:
        reason = seen.limited or "its covariance was not collected"
        context.note("PC212", f"scored by Var(x)·‖W‖² instead of the exact saliency: {reason}", where)
        return per_channel(fluctuation(columns, context), columns.index, size)
    counts = np.bincount(columns.index[columns.index >= 0], minlength=size)
    if counts.max() > 1 and seen.covariance is not None:
        if len(columns.index) <= BLOCK_LIMIT:
            return block_saliency(columns, context.inverse(columns.consumer), counts)
        context.note("PC212", f"channels of up to {counts.max()} positions are scored position by position", where)
    single = row_norms(columns.weight, 2) / np.maximum(seen.inverse_diag, np.finfo(np.float64).tiny)
    return per_channel(single, columns.index, size)


def block_saliency(columns: Columns, inverse: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """tr(W_P [(C⁻¹)_PP]⁻¹ W_Pᵀ) of every channel; `inverse` is C⁻¹ [positions, positions]."""
    scores = np.zeros(len(counts))
    for channel in np.flatnonzero(counts):
        positions = np.flatnonzero(columns.index == channel)
        weight = columns.weight[positions].astype(np.float64)
        block = inverse[np.ix_(positions, positions)]
        scores[channel] = float((weight * np.linalg.solve(block, weight)).sum())
    return scores
