"""Fused attention: whole heads are the channels; query heads that share a key-value head go together.

ONNX `Attention` (opset 23; 3-D inputs with head counts, or 4-D with a heads axis) and ONNX Runtime's
`MultiHeadAttention` and `GroupQueryAttention` (separate query, key, value) take [batch, length, heads · width]. The
head counts are attributes of the node, so they are read, not guessed. Packed or cached inputs are pinned.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Flow, Ids
from prunec.graph.rules.base import attribute, given, outputs_untracked, rank
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import dims, is_constant

_COUNTS = {
    "Attention": ("q_num_heads", "kv_num_heads"),
    "MultiHeadAttention": ("num_heads", "num_heads"),
    "GroupQueryAttention": ("num_heads", "kv_num_heads"),
}
_QUERY, _KEY, _VALUE = range(3)


class FusedAttention:
    def couple(self, node: ir.Node, flow: Flow) -> None:
        reason = self._unsupported(node)
        if reason is not None:
            flow.pin_inputs(node, "PC101", reason)
            outputs_untracked(node, flow)
            return
        if rank(node.inputs[_QUERY]) == 4:
            self._heads_axis(node, flow)
        else:
            self._flat(node, flow)
        for output in node.outputs[1:]:
            flow.set(output, [None] * (rank(output) or 0))

    def _unsupported(self, node: ir.Node) -> str | None:
        separate = all(given(node, i) and not is_constant(node.inputs[i]) for i in (_QUERY, _KEY, _VALUE))
        ranks = {rank(node.inputs[i]) for i in (_QUERY, _KEY, _VALUE)} if separate else set()
        if not separate or len(ranks) != 1 or not ranks <= {3, 4}:
            return f"{node.op_type} with packed, constant or unequal query, key and value"
        extra = [i for i in range(3, len(node.inputs)) if given(node, i)]
        if any(self._spans_heads(node, i) for i in extra):
            return f"{node.op_type} with a bias, cache or mask that has a heads axis"
        if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            return f"{node.op_type} whose cache or scores are used"
        return None

    def _spans_heads(self, node: ir.Node, index: int) -> bool:
        """Whether a further input is more than a mask over positions or a scalar."""
        value = node.inputs[index]
        shape = dims(value)
        if node.op_type == "MultiHeadAttention" and index == 3:
            return True  # the projection bias, over all heads
        if node.op_type == "GroupQueryAttention":
            return index in (3, 4)
        return shape is None or (len(shape) == 4 and shape[1] != 1) or index in (4, 5)

    def _heads_axis(self, node: ir.Node, flow: Flow) -> None:
        queries, keys, values = (flow.of(node.inputs[i]) for i in (_QUERY, _KEY, _VALUE))
        heads = self._tie(node, flow, queries[1], keys[1], values[1])
        for ids in (queries[3], keys[3]):
            flow.pin(ids, "PC105", node, "the scale of the scores depends on the width of a head")
        for axes in (queries, keys, values):
            flow.pin(axes[0], "PC107", node, "the batch of attention cannot be cut")
        flow.set(node.outputs[0], [None, heads, None, values[3]])

    def _flat(self, node: ir.Node, flow: Flow) -> None:
        names = _COUNTS[node.op_type]
        counts = [int(attribute(node, names[0])), *[int(attribute(node, names[1]))] * 2]
        heads: list[Ids] = []
        for index, count in zip((_QUERY, _KEY, _VALUE), counts, strict=True):
            ids = flow.of(node.inputs[index])[2]
            rows = None if ids is None else ids.reshape(count, -1)
            if rows is not None:
                flow.unite(rows[:, :1], rows)
            heads.append(None if rows is None else rows[:, 0])
        tied = self._tie(node, flow, *heads)
        width = (dims(node.outputs[0]) or (0, 0, 0))[2]
        out = None if tied is None or not isinstance(width, int) else np.repeat(tied, width // counts[0])
        flow.set(node.outputs[0], [None, None, out])

    def _tie(self, node: ir.Node, flow: Flow, queries: Ids, keys: Ids, values: Ids) -> Ids:
        """Unite the heads of query, key and value; returns the ids of the query heads."""
        if queries is None or keys is None or values is None:
            for ids in (queries, keys, values):
                flow.pin(ids, "PC103", node, "attends with heads that cannot be cut")
            return None
        flow.unite(keys, values)
        flow.unite(np.repeat(keys, len(queries) // len(keys)), queries)
        return queries

    def cut(self, node: ir.Node, cut: Cut) -> None:
        if rank(node.inputs[_QUERY]) == 4:
            return
        counts = dict(zip(_COUNTS[node.op_type], (_QUERY, _KEY), strict=True))
        for name, index in counts.items():
            mask = cut.kept(node.inputs[index], 2)
            if mask is not None:
                heads = mask.reshape(int(attribute(node, name)), -1)[:, 0]
                node.attributes[name] = ir.AttrInt64(name, int(heads.sum()))
