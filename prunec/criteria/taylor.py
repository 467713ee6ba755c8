"""First-order Taylor, over the whole coupled group: I(c) = E_n |Σ_{w of c} w·g_n| over all weights that make channel c.

The absolute value is taken per sample, after the sum over all producers: what one output loses when the channel goes
out of all of them at once. Molchanov et al., Importance Estimation for Neural Network Pruning (arXiv 1906.10771); the
labels are drawn from the model (`prunec.statistics.gradients`), so no data needs any.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Needs, ScoreContext
from prunec.graph import Group


class Taylor:
    """E |Σ w·g|."""

    name = "taylor"
    needs: frozenset[Needs] = frozenset({"gradients"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        return np.array(context.gradient_statistics().products[group.id])
