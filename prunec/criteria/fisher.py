"""Optimal Brain Damage with the Fisher information for a Hessian: I(c) = Σ_{w of c} w²·E[g²] over all producers.

The diagonal of the Fisher matrix, weight by weight: LeCun et al., Optimal Brain Damage (1989); the Fisher form: Theis
et al. (arXiv 1801.05787). Where the weights of a channel act together, `taylor` knows it and this does not.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Needs, ScoreContext, per_channel
from prunec.criteria.magnitude import weights
from prunec.graph import Group


class Fisher:
    """Σ w²·E[g²]."""

    name = "fisher"
    needs: frozenset[Needs] = frozenset({"gradients"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        squares = context.gradient_statistics().squares
        total = np.zeros(group.size)
        for member in weights(group, context):
            if member.role == "producer" and member.tensor in squares:
                product = np.square(context.array(member.tensor)) * squares[member.tensor]
                rows = np.moveaxis(product, member.axis, 0).reshape(product.shape[member.axis], -1)
                total += per_channel(rows.sum(axis=1, dtype=np.float64), member.index, group.size)
        return total
