"""Channels that only a product of two activations consumes: the width of queries and keys.

Scores are Σ_j q_j k_j, so without channel j they miss q_j k_j. A softmax does not see the part that is the same for all
keys; which side is the keys is not asked, both are tried:

    I(j) = Σ_heads ½ (E[q²] Var(k) + Var(q) E[k²])

with the moments of y = W x + b from those of the projections' inputs: Var(y) = w C wᵀ, E[y] = w μ + b.
"""

from __future__ import annotations

import numpy as np

from prunec.criteria.base import ScoreContext, per_channel
from prunec.graph import Group, Member
from prunec.graph.shapes import constant


def product_saliency(group: Group, context: ScoreContext) -> np.ndarray | None:
    """float64 [group.size], or None where there are not two projections of one width with covariances."""
    found = [moments for member in group.producers() if (moments := _moments(member, context)) is not None]
    if len(found) != 2 or len(group.producers()) != 2:
        return None
    (index, mean_q, var_q), (other, mean_k, var_k) = found
    if not np.array_equal(index, other):
        return None
    missed = ((var_q + mean_q**2) * var_k + var_q * (var_k + mean_k**2)) / 2
    return per_channel(missed, index, group.size)


def _moments(member: Member, context: ScoreContext) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Channel, mean and variance of every output position of a product with a matrix."""
    node = context.nodes[member.node]
    seen = context.statistics.get(member.node)
    if node.op_type not in ("MatMul", "Gemm") or member.input_index != 1 or seen is None or seen.covariance is None:
        return None
    weight = context.rows(member).astype(np.float64)
    if weight.shape[1] != len(seen.mean):
        return None
    mean = weight @ seen.mean + _bias(member, context)
    return member.index, mean, np.einsum("oi,ij,oj->o", weight, seen.covariance, weight, optimize=True)


def _bias(member: Member, context: ScoreContext) -> np.ndarray:
    node = context.nodes[member.node]
    value = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    users = list(node.outputs[0].uses())
    if value is None and len(users) == 1 and users[0].node.op_type == "Add":
        value = users[0].node.inputs[1 - users[0].idx]
    bias = constant(value)
    return np.zeros(len(member.index)) if bias is None or bias.size != len(member.index) else bias.ravel().astype(float)
