"""FLAP's fluctuation: I(c) = Σ_{j of c} Var(x_j)·‖W_:j‖² over all consumers of the channel.

What is lost when x_j is replaced by its mean, which a bias can hold. An et al. (arXiv 2312.11983); there the scores are
standardised per layer and one threshold is drawn: normalise="standardise", scope="global".
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Columns, Needs, ScoreContext, per_channel, row_norms
from prunec.criteria.magnitude import no_consumer
from prunec.graph import Group


class Fluctuation:
    """Variance times squared column norm."""

    name = "flap"
    needs: frozenset[Needs] = frozenset({"moments"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        columns = context.columns(group)
        if not columns:
            return no_consumer(self.name, group, context)
        return np.asarray(np.sum([per_channel(fluctuation(c, context), c.index, group.size) for c in columns], axis=0))


def fluctuation(columns: Columns, context: ScoreContext) -> np.ndarray:
    """Var(x_j)·‖W_:j‖², float64 [positions]."""
    seen = context.layer(columns.consumer)
    variance = np.maximum(seen.second_moment_diag - np.square(seen.mean), 0)
    return np.asarray(variance * row_norms(columns.weight, 2))
