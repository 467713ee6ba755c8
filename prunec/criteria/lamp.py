"""LAMP, on channels: a channel's squared norm against all that are at least as strong.

    I(c) = n(c) / Σ_{v: n(v) ≥ n(c)} n(v),   n the squared group norm of `magnitude.L2`

The strongest channel of every group scores 1, so scores of different groups compare without further normalisation.
Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning (arXiv 2010.07611), there on single weights.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Needs, ScoreContext
from prunec.criteria.magnitude import group_norm
from prunec.graph import Group


class Lamp:
    """Scores in [0, 1]."""

    name = "lamp"
    needs: frozenset[Needs] = frozenset()
    data_free = True

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]; equal norms get equal scores."""
        return lamp(group_norm(group, context, 2))


def lamp(norms: np.ndarray) -> np.ndarray:
    """The formula on squared norms [n]."""
    values, inverse, counts = np.unique(norms, return_inverse=True, return_counts=True)
    at_least = np.cumsum((values * counts)[::-1])[::-1]
    share: np.ndarray = np.divide(values, at_least, out=np.zeros_like(values), where=at_least > 0)
    return share[inverse]
