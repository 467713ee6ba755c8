"""Weight magnitude over the whole coupled group.

    I(c) = mean over members m of  n_m(c) / mean_c n_m(c),   n_m(c) = Σ |w|^p over all of m's weights of channel c

Members are the weights that make the channels (rows of their producers), that consume them (columns) and that carry
them (depthwise kernels); biases and other vectors are left out. Each member is divided by its own mean, so that a wide
layer does not drown a narrow one. p = 1: Li et al., Pruning Filters for Efficient ConvNets (arXiv 1608.08710); the
group form: DepGraph (arXiv 2301.12900).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from prunec.criteria.base import Needs, ScoreContext, where
from prunec.graph import Group, Member


class L1:
    """p = 1."""

    name = "l1"
    needs: frozenset[Needs] = frozenset()
    data_free = True

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size], mean 1 where every member covers every channel."""
        return group_norm(group, context, 1)


class L2:
    """p = 2 (squared norms)."""

    name = "l2"
    needs: frozenset[Needs] = frozenset()
    data_free = True

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size], mean 1 where every member covers every channel."""
        return group_norm(group, context, 2)


def group_norm(group: Group, context: ScoreContext, power: int) -> np.ndarray:
    """float64 [group.size]: the formula of this module."""
    norms = ((m.channels, context.norms(m, power)[m.places]) for m in weights(group, context))
    return mean_of_normalised(norms, group.size)


def weights(group: Group, context: ScoreContext) -> Iterator[Member]:
    """Members that are weights, each axis of each tensor once (a shared tensor has one member per use)."""
    seen: set[tuple[str, int]] = set()
    for member in group.members:
        if (member.role != "carrier" or _is_kernel(member, context)) and (member.tensor, member.axis) not in seen:
            seen.add((member.tensor, member.axis))
            yield member


def mean_of_normalised(parts: Iterator[tuple[np.ndarray, np.ndarray]], size: int) -> np.ndarray:
    """Mean over (index, values per position) pairs, each summed into channels and divided by its own mean."""
    found = [(index[index >= 0], values[index >= 0]) for index, values in parts]
    if not found:
        return np.zeros(size)
    rows = np.repeat(np.arange(len(found)), [len(index) for index, _ in found])
    places = rows * size + np.concatenate([index for index, _ in found])
    values = np.concatenate([values for _, values in found]).astype(np.float64)
    summed = np.bincount(places, values, len(found) * size).reshape(len(found), size)
    covered = np.bincount(places, minlength=len(found) * size).reshape(len(found), size) > 0
    mean = summed.sum(axis=1) / covered.sum(axis=1)
    return np.asarray((summed / np.where(mean > 0, mean, 1)[:, None]).sum(axis=0) / np.maximum(covered.sum(axis=0), 1))


def no_consumer(name: str, group: Group, context: ScoreContext) -> np.ndarray:
    """Scores where only a product of two activations consumes the group: squared weight norms, and a note."""
    context.note("PC212", f"scored by weight norms: no weight consumes these channels, so {name} cannot", where(group))
    return group_norm(group, context, 2)


def _is_kernel(member: Member, context: ScoreContext) -> bool:
    """Whether a carrier is a depthwise kernel."""
    op_type = context.nodes[member.node].op_type
    place = 3 if op_type == "QLinearConv" else 1
    kernels = ("Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger")
    return member.input_index == place and member.axis <= 1 and op_type in kernels
