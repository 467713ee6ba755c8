"""Optimal Brain Surgeon, on channels: the error left after the other channels made up for the removed one.

With C = Cov(x) (damped), removing the positions P of a channel and refitting the rest by least squares costs

    I(c) = tr(W_P [(C⁻¹)_PP]⁻¹ W_Pᵀ)        (one position: ‖W_:j‖² / (C⁻¹)_jj)

summed over all consumers; conv: every kernel position is a layer of its own over the same channels. Hassibi & Stork
(1993); the pooled form: OBSPA (arXiv 2403.18955). Where no covariance was kept (the layer is too wide), the
compensation is not known and Var(x_j)·‖W_:j‖², an upper bound in the same units, takes its place: a note says where.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Columns, Needs, ScoreContext, per_channel
from prunec.criteria.flap import fluctuation
from prunec.criteria.magnitude import no_consumer, row_norms
from prunec.graph import Group


class OptimalBrainSurgeon:
    """Least-squares saliency."""

    name = "obs"
    needs: frozenset[Needs] = frozenset({"covariance"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        columns = context.columns(group)
        if not columns:
            return no_consumer(self.name, group, context)
        return np.sum([per_channel(saliency(c, context), c.index, group.size) for c in columns], axis=0)


def saliency(columns: Columns, context: ScoreContext) -> np.ndarray:
    """‖W_:j‖² / (C⁻¹)_jj, float64 [positions]; the fallback where the layer is limited."""
    seen = context.layer(columns.consumer)
    if seen.inverse_diag is None:
        reason = seen.limited or "its covariance was not collected"
        context.note("PC212", f"scored by Var(x)·‖W‖² instead of the exact saliency: {reason}", columns.consumer.node)
        return fluctuation(columns, context)
    result: np.ndarray = row_norms(columns.weight, 2) / np.maximum(seen.inverse_diag, np.finfo(np.float64).tiny)
    return result
