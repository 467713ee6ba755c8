"""Batch-norm scale: I(c) = mean of |γ_c| over the group's batch norms.

Canonicalisation folds most batch norms into the layer before them and leaves |γ| behind on the folded weight
(`value.meta["prunec.bn_scale"]`, one entry per output channel); the others are still nodes. Liu et al., Network
Slimming (arXiv 1708.06519).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from prunec.criteria.base import Needs, ScoreContext, per_channel, where
from prunec.diagnostics import PrunecError
from prunec.graph import Group

META_KEY = "prunec.bn_scale"


class BatchNormScale:
    """|γ|; refuses groups that no batch norm scales."""

    name = "bn-scale"
    needs: frozenset[Needs] = frozenset()
    data_free = True

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size].

        Raises:
            PrunecError PC209: some channel of the group has no batch norm.
        """
        found = list(scales(group, context))
        covered = np.zeros(group.size, bool)
        for index, _ in found:
            covered[index[index >= 0]] = True
        if not covered.all():
            name = group.producers()[0].node if group.members else group.id
            raise PrunecError(
                "PC209",
                "bn-scale has no batch norm to read here",
                where=where(group),
                hint=f"leave the layer alone with --exclude {name}, or take another criterion: l1, lamp, obs",
            )
        total = np.sum([per_channel(values, index, group.size) for index, values in found], axis=0)
        return np.asarray(total / np.sum([per_channel(np.ones(len(i)), i, group.size) for i, _ in found], axis=0))


def scales(group: Group, context: ScoreContext) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(index, |γ| per position) of every batch norm on the group, folded or not."""
    for member in group.members:
        node = context.nodes[member.node]
        if node.op_type == "BatchNormalization" and member.input_index == 1:
            yield member.index, np.abs(context.array(member.tensor).astype(np.float64))
        recorded = context.model.graph.initializers[member.tensor].meta.get(META_KEY)
        if recorded is not None and member.role != "consumer" and len(recorded) == len(member.index):
            yield member.index, np.abs(np.asarray(recorded, np.float64))
