"""How strong the activations are: I(c) = mean over consumers of √E[x_c²] / mean_c √E[x_c²].

Needs second moments, no weights. The activation form of Molchanov et al. (arXiv 1611.06440), with the root mean square
for the mean: a channel of either sign counts by its size.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Needs, ScoreContext
from prunec.criteria.magnitude import mean_of_normalised, no_consumer
from prunec.graph import Group


class Activation:
    """Root mean square of the data at the consumers."""

    name = "activation"
    needs: frozenset[Needs] = frozenset({"moments"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        columns = context.columns(group)
        if not columns:
            return no_consumer(self.name, group, context)
        data = ((c.index, np.sqrt(np.maximum(context.layer(c.consumer).second_moment_diag, 0))) for c in columns)
        return mean_of_normalised(data, group.size)
