"""Fused attention: whole heads are the channels; query heads that share a key-value head go together.

With `split="inner"` it is the width of every head: queries and keys lose the same positions, and the scale of their
scores is that of the whole width; values are narrower by themselves. A bias that the node adds to queries and keys pins
their width, and `GroupQueryAttention` wants all three alike.

ONNX `Attention` (opset 23; 3-D inputs with head counts, or 4-D with a heads axis) and ONNX Runtime's
`MultiHeadAttention` and `GroupQueryAttention` (separate query, key, value) take [batch, length, heads · width]. The
head counts are attributes of the node, so they are read, not guessed. A bias or mask with a heads axis follows the
heads; packed and cached inputs are pinned. `attention_packed.py` has the operator that projects by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Flow, Ids
from prunec.graph.rules.base import attribute, given, outputs_untracked, rank
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import dims, length
from prunec.graph.weights import is_weight

_COUNTS = {
    "Attention": ("q_num_heads", "kv_num_heads"),
    "MultiHeadAttention": ("num_heads", "num_heads"),
    "GroupQueryAttention": ("num_heads", "kv_num_heads"),
}
_QUERY, _KEY, _VALUE = range(3)
_CACHES = {"Attention": (4, 5), "MultiHeadAttention": (6, 7), "GroupQueryAttention": (3, 4)}
_MASKS = {"Attention": (3,), "MultiHeadAttention": (4, 5), "GroupQueryAttention": (10,)}
"""Inputs added to the scores, [batch, heads, length, length] or with fewer axes."""
_BIAS = {"MultiHeadAttention": 3}
"""The biases of query, key and value in one vector."""
_HEAD_VECTORS = {"GroupQueryAttention": (11,)}


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
        separate = all(given(node, i) and not is_weight(node.inputs[i]) for i in (_QUERY, _KEY, _VALUE))
        ranks = {rank(node.inputs[i]) for i in (_QUERY, _KEY, _VALUE)} if separate else set()
        if not separate or len(ranks) != 1 or not ranks <= {3, 4}:
            return f"{node.op_type} with packed, constant or unequal query, key and value"
        if any(given(node, i) for i in _CACHES[node.op_type]):
            return f"{node.op_type} with a cache, which has a heads axis"
        if any(given(node, i) for i in _HEAD_VECTORS.get(node.op_type, ())):
            return f"{node.op_type} with a number for each head"
        bias = _BIAS.get(node.op_type)
        if bias is not None and given(node, bias) and not is_weight(node.inputs[bias]):
            return f"{node.op_type} with a bias that is computed at run time"
        if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            return f"{node.op_type} whose cache or scores are used"
        return None

    def _heads_axis(self, node: ir.Node, flow: Flow) -> None:
        queries, keys, values = (flow.of(node.inputs[i]) for i in (_QUERY, _KEY, _VALUE))
        heads = self._tie(node, flow, queries[1], keys[1], values[1])
        self._score_widths(node, flow, queries[3], keys[3], 3)
        for axes in (queries, keys, values):
            flow.pin(axes[0], "PC107", node, "the batch of attention cannot be cut")
            flow.pin(axes[2], "PC107", node, "the length of attention cannot be cut")
        self._masks(node, flow, heads)
        flow.set(node.outputs[0], [None, heads, None, values[3]])

    def _flat(self, node: ir.Node, flow: Flow) -> None:
        names = _COUNTS[node.op_type]
        counts = [int(attribute(node, names[0])), *[int(attribute(node, names[1]))] * 2]
        if flow.split == "inner":
            self._widths(node, flow, counts)
            return
        heads: list[Ids] = []
        widths: list[int] = []
        for rows in _sides(node, flow, counts):
            if rows is not None:
                flow.unite(rows[:, :1], rows)
            heads.append(None if rows is None else rows[:, 0])
            widths.append(0 if rows is None else rows.shape[1])
        tied = self._tie(node, flow, *heads)
        self._masks(node, flow, tied)
        bias = _BIAS.get(node.op_type)
        if tied is not None and bias is not None and given(node, bias):
            flow.use(node, bias, [np.concatenate([np.repeat(tied, width) for width in widths])], "carrier")
        width = (dims(node.outputs[0]) or (0, 0, 0))[2]
        out = None if tied is None or not isinstance(width, int) else np.repeat(tied, width // counts[0])
        if tied is not None and out is None:
            flow.pin(tied, "PC104", node, "the width of its output is unknown")
        flow.set(node.outputs[0], [None, None, out])

    def _widths(self, node: ir.Node, flow: Flow, counts: list[int]) -> None:
        """[batch, length, heads · width], cut along the width: the same positions of every head."""
        found: list[Ids] = []
        for rows in _sides(node, flow, counts):
            if rows is not None:
                flow.unite(rows[:1], rows)
            found.append(None if rows is None else rows.ravel())
        queries, keys, values = found
        if queries is not None and keys is not None:
            own = queries.reshape(counts[0], -1)[0], keys.reshape(counts[1], -1)[0]
            flow.unite(*own)
        bias = _BIAS.get(node.op_type)
        biased = bias is not None and given(node, bias)
        if biased:  # added inside, behind whatever is done to the inputs
            for ids in (queries, keys):
                flow.pin(ids, "PC105", node, "adds a bias to queries and keys before their product")
        self._score_widths(node, flow, queries, keys, 2)
        if node.op_type == "GroupQueryAttention":
            for ids in found:
                flow.pin(ids, "PC101", node, "wants queries, keys and values of one width")
        if biased and values is not None:
            sizes = [length(node.inputs[i], 2) or 0 for i in (_QUERY, _KEY)]
            fixed = flow.fresh(sum(sizes))
            flow.pin(fixed, "PC105", node, "adds a bias to queries and keys before their product")
            flow.use(node, bias, [np.concatenate([fixed, values])], "carrier")  # type: ignore[arg-type]
        self._masks(node, flow, None)
        out = None if values is None else np.tile(values.reshape(counts[2], -1)[0], counts[0])
        flow.set(node.outputs[0], [None, None, out])

    def _score_widths(self, node: ir.Node, flow: Flow, queries: Ids, keys: Ids, axis: int) -> None:
        """The scores are a sum over the width, of queries and keys alike; their scale stays that of the whole width."""
        if queries is None or keys is None:
            for ids in (queries, keys):
                flow.pin(ids, "PC103", node, "is contracted with an axis that cannot be cut")
            return
        if not attribute(node, "scale", 0.0):
            for ids in (queries, keys):
                flow.pin(ids, "PC105", node, "the scale of the scores depends on the width of a head")
        if axis == 3:
            flow.unite(queries, keys)
        flow.reduce(node, _QUERY, axis, queries)
        flow.reduce(node, _KEY, axis, keys)

    def _tie(self, node: ir.Node, flow: Flow, queries: Ids, keys: Ids, values: Ids) -> Ids:
        """Unite the heads of query, key and value; returns the ids of the query heads."""
        if queries is None or keys is None or values is None:
            for ids in (queries, keys, values):
                flow.pin(ids, "PC103", node, "attends with heads that cannot be cut")
            return None
        flow.unite(keys, values)
        flow.unite(np.repeat(keys, len(queries) // len(keys)), queries)
        return queries

    def _masks(self, node: ir.Node, flow: Flow, heads: Ids) -> None:
        for index in _MASKS[node.op_type]:
            if given(node, index):
                tie_mask(node, flow, index, heads)

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """Fewer heads, or narrower ones, which scale their scores as before (`canonicalise.explicit_scale`)."""
        if rank(node.inputs[_QUERY]) == 4:
            return
        counts = dict(zip(_COUNTS[node.op_type], (_QUERY, _KEY), strict=True))
        for name, index in counts.items():
            mask = cut.kept(node.inputs[index], 2)
            if mask is not None:
                heads = mask.reshape(int(attribute(node, name)), -1).any(axis=1)
                node.attributes[name] = ir.AttrInt64(name, int(heads.sum()))


def tie_mask(node: ir.Node, flow: Flow, index: int, heads: Ids) -> None:
    """What is added to the scores: axis −3, where it is longer than 1, is that of the heads."""
    value = node.inputs[index]
    shape = dims(value)
    if shape is None:
        flow.pin(heads, "PC104", node, "the rank of its mask is unknown")
        return
    if is_weight(value):
        if heads is not None and len(shape) >= 3 and shape[-3] == len(heads):
            flow.use(node, index, [*[None] * (len(shape) - 3), heads, None, None], "carrier")
        return
    axes = flow.of(value)
    for axis, ids in enumerate(axes):
        if axis != len(axes) - 3:
            flow.pin(ids, "PC107", node, "batch and length of attention cannot be cut")
    if len(shape) < 3 or shape[-3] == 1:
        return
    found = axes[-3]
    if heads is not None and found is not None:
        flow.unite(heads, found)
    else:
        for ids in (heads, found):
            flow.pin(ids, "PC103", node, "has a mask per head, which cannot be cut")


def _sides(node: ir.Node, flow: Flow, counts: Sequence[int]) -> Iterator[Ids]:
    """Channel ids [heads, width] of queries, keys and values, None where they are not followed."""
    for index, count in zip((_QUERY, _KEY, _VALUE), counts, strict=True):
        axes = flow.of(node.inputs[index])
        for ids in axes[:2]:
            flow.pin(ids, "PC107", node, "batch and length of attention cannot be cut")
        yield None if axes[2] is None else axes[2].reshape(count, -1)
