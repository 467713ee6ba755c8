"""ONNX Runtime's `Attention`: projection, heads and mixing in one node, as its transformer optimizer writes it.

Input [batch, length, D], weight [D, q + k + v] and bias [q + k + v], where q, k, v are `qkv_hidden_sizes` (by default
a third each) and split into `num_heads` heads. The input is consumed along the first axis of the weight; whole heads
are the channels along the second, of query, key and value together. `QAttention` is the same on integers. The width of
heads stays: queries and keys are made and multiplied inside, where no reference can put a mask.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Flow, Ids
from prunec.graph.rules.attention import tie_mask
from prunec.graph.rules.base import attribute, given, outputs_untracked, rank
from prunec.graph.rules.cut import Cut
from prunec.graph.rules.gemm import use_vector
from prunec.graph.shapes import dims, length
from prunec.graph.weights import is_weight

_INPUT, _WEIGHT, _BIAS = range(3)


class PackedAttention:
    past, mask = 4, 5
    scales: tuple[int, ...] = ()
    zero: int | None = None

    def couple(self, node: ir.Node, flow: Flow) -> None:
        sizes = hidden_sizes(node)
        vectors = [node.inputs[i] for i in (_WEIGHT, _BIAS) if given(node, i)]
        if sizes is None or rank(node.inputs[_INPUT]) != 3 or not all(is_weight(v) for v in vectors):
            flow.pin_inputs(node, "PC106", f"the weight of {node.op_type} is computed at run time or of unknown shape")
            outputs_untracked(node, flow)
            return
        axes = flow.of(node.inputs[_INPUT])
        for ids in axes[:2]:
            flow.pin(ids, "PC107", node, "batch and length of attention cannot be cut")
        flow.reduce(node, _INPUT, 2, axes[2], (_WEIGHT, 0), self.zero)
        heads = flow.fresh(int(attribute(node, "num_heads")))
        columns = np.concatenate([np.repeat(heads, size // len(heads)) for size in sizes])
        flow.use(node, _WEIGHT, [axes[2], columns], ["consumer", "producer"])
        if given(node, _BIAS):
            flow.use(node, _BIAS, [columns], "carrier")
        for index in self.scales:
            use_vector(node, flow, index, columns)
        self._positions(node, flow, heads)
        flow.set(node.outputs[0], [None, None, np.repeat(heads, sizes[2] // len(heads))])
        for output in node.outputs[1:]:
            flow.set(output, [None] * (rank(output) or 0))

    def _positions(self, node: ir.Node, flow: Flow, heads: Ids) -> None:
        """Cache, mask and bias of the scores."""
        for index in range(_BIAS + 1, len(node.inputs)):
            if not given(node, index) or index in self.scales:
                continue
            if index == self.past:
                flow.pin(heads, "PC101", node, "has a cache, which has a heads axis")
                for ids in flow.of(node.inputs[index]):
                    flow.pin(ids, "PC101", node, "keeps it as its cache")
            elif index == self.mask:
                tie_mask(node, flow, index, heads)
            else:
                for ids in flow.of(node.inputs[index]):
                    flow.pin(ids, "PC107", node, "batch and length of attention cannot be cut")
        if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            flow.pin(heads, "PC101", node, "hands on its cache, which has a heads axis")

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """Fewer heads of the same width; the sizes are written down where they are no thirds."""
        kept = cut.kept(node.outputs[0], 2)
        sizes = hidden_sizes(node)
        if kept is None or sizes is None:
            return
        heads = int(attribute(node, "num_heads"))
        left = int(kept.reshape(heads, -1)[:, 0].sum())
        node.attributes["num_heads"] = ir.AttrInt64("num_heads", left)
        if "qkv_hidden_sizes" in node.attributes:
            lengths = [size // heads * left for size in sizes]
            node.attributes["qkv_hidden_sizes"] = ir.AttrInt64s("qkv_hidden_sizes", lengths)


class QuantisedAttention(PackedAttention):
    """(x, w, bias, x scale, w scale, mask, x zero, w zero, past): the bias is float."""

    past, mask = 8, -1
    scales, zero = (4, 7), 6


def hidden_sizes(node: ir.Node) -> list[int] | None:
    """Widths of query, key and value together over all heads, or None where they do not fit the weight."""
    heads = int(attribute(node, "num_heads", 0))
    total = length(node.inputs[_WEIGHT], 1)
    if total is None or heads < 1 or len(dims(node.inputs[_WEIGHT]) or ()) != 2:
        return None
    found = attribute(node, "qkv_hidden_sizes")
    sizes = [int(size) for size in found] if found else [total // 3] * 3
    fits = len(sizes) == 3 and sum(sizes) == total and all(size % heads == 0 for size in sizes)
    return sizes if fits else None
