"""Relevance: I(c) = E_n |Σ_{positions} x_c·∂f/∂x_c| over all places that use channel c.

Layer-wise relevance propagation by the ε-rule, which for ε → 0 and rectifiers is input × gradient; f is the largest
score where the model decides, else ½‖y‖². Yeom et al., Pruning by Explaining (arXiv 1912.08881).
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Needs, ScoreContext
from prunec.graph import Group


class Relevance:
    """E |Σ x·∂f/∂x|."""

    name = "lrp"
    needs: frozenset[Needs] = frozenset({"relevance"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        return np.array(context.gradient_statistics().relevance[group.id])
