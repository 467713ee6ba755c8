"""What the groups of a transformer are: heads of attention, and hidden layers of feed-forward blocks.

Attention is a softmax whose result multiplies another activation, or a fused node. Its heads are the groups on the
other axes of the scores. A feed-forward block is a free group that products make, an activation function passes and
products use. Nothing depends on names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis, Group
from prunec.graph.rules.base import attribute
from prunec.graph.shapes import dims
from prunec.graph.weights import is_weight

FUSED = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention"})
_ACTIVATIONS = frozenset(
    "Relu Gelu FastGelu BiasGelu QuickGelu Erf Tanh Sigmoid HardSwish Elu Selu Swish Mish Softplus Clip".split()
)
_PRODUCTS = frozenset("MatMul Gemm Einsum FusedMatMul FusedGemm QLinearMatMul MatMulInteger QGemm MoE".split())
_THROUGH = frozenset({"Cast", "Dropout", "Identity", "Reshape", "Transpose", "Mul", "Where"})


@dataclass(frozen=True)
class Attention:
    """One attention by the name of its softmax or fused node; `heads` are the ids of groups that are its heads."""

    node: str
    heads: tuple[str, ...]


def attentions(model: ir.Model, analysis: Analysis) -> tuple[Attention, ...]:
    """Every attention of the model, with the free groups of more than one head."""
    found = []
    for node in model.graph:
        value: ir.Value | None = None
        along = None
        if node.op_type in FUSED:
            value = node.outputs[0]
        elif node.op_type == "Softmax" and _mixes(node.outputs[0]):
            value = node.outputs[0]
            along = int(attribute(node, "axis", -1)) % max(len(value.shape or ()), 1)
        if value is not None:
            axes = analysis.value_axes.get(value.name or "", ())
            seen = [ids for axis, ids in enumerate(axes) if ids is not None and axis != along]
            heads = [g.id for g in _free(analysis) if any(np.isin(g.channels, ids).any() for ids in seen)]
            found.append(Attention(node.name or "", tuple(heads)))
    return tuple(found)


def feed_forwards(model: ir.Model, analysis: Analysis) -> tuple[Group, ...]:
    """Free groups that are hidden layers between two products, behind an activation function."""
    nodes = {node.name: node for node in model.graph}
    heads = {group for attention in attentions(model, analysis) for group in attention.heads}
    values = [node.outputs[0].name or "" for node in model.graph if node.op_type in _ACTIVATIONS]
    active = np.zeros(analysis.channel_count, bool)
    for name in values:
        for ids in analysis.value_axes.get(name, ()):
            if ids is not None:
                active[ids] = True
    return tuple(
        group
        for group in _free(analysis)
        if group.id not in heads
        and active[group.channels].any()
        and all(_is_product(nodes[m.node]) for m in group.producers())
        and not any(nodes[m.node].op_type == "Conv" and not _is_product(nodes[m.node]) for m in group.members)
        and any(m.role == "consumer" and _is_product(nodes[m.node]) for m in group.members)
    )


def _is_product(node: ir.Node) -> bool:
    """A matrix product, or a convolution that is one: 1×1, one group."""
    is_pointwise = node.op_type == "Conv" and all(d == 1 for d in (dims(node.inputs[1]) or ())[2:])
    return node.op_type in _PRODUCTS or (is_pointwise and int(attribute(node, "group", 1)) == 1)


def _free(analysis: Analysis) -> list[Group]:
    return [group for group in analysis.groups if group.pinned is None and group.size > 1]


def _mixes(value: ir.Value, depth: int = 4) -> bool:
    """Whether `value` is multiplied with an activation that is no weight."""
    for node, _ in value.uses():
        if node.op_type in ("MatMul", "Einsum", "FusedMatMul") and not any(is_weight(v) for v in node.inputs):
            return True
        if depth and node.op_type in _THROUGH and _mixes(node.outputs[0], depth - 1):
            return True
    return False
