"""Wanda, on channels: I(c) = Σ_{j of c} Σ_i |W_ij|·√E[x_j²] over all consumers of the channel.

The sum over the rows i of what Wanda gives each weight of column j; conv: all kh·kw weights of a column. Sun et al.
(arXiv 2306.11695), there on single weights.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import Needs, ScoreContext, per_channel, row_norms
from prunec.criteria.magnitude import no_consumer
from prunec.graph import Group


class Wanda:
    """|W|·‖x‖, summed over the consumers."""

    name = "wanda"
    needs: frozenset[Needs] = frozenset({"moments"})
    data_free = False

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        columns = context.columns(group)
        if not columns:
            return no_consumer(self.name, group, context)
        total = np.zeros(group.size)
        for part in columns:
            scale = np.sqrt(np.maximum(context.layer(part.consumer).second_moment_diag, 0))
            total += per_channel(row_norms(part.weight, 1) * scale, part.index, group.size)
        return total
