"""Types and shapes of ONNX Runtime's own operators, which onnx has no schemas for.

`infer(node, facts)` → one (element type, shape) per output, None where nothing is known; or None: not in the table.
A fused operator that only adds an activation to a standard one is inferred as that one (`NAMESAKES`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from prunec.passes.canonicalise.symbols import Dim
from prunec.passes.canonicalise.tools import attribute_int, attribute_ints

if TYPE_CHECKING:
    from prunec.passes.canonicalise.facts import Facts

DOMAIN = "com.microsoft"
NAMESAKES = {"FusedConv": "Conv", "FusedGemm": "Gemm", "DequantizeLinear": "DequantizeLinear"} | {
    "QuantizeLinear": "QuantizeLinear",
    "QLinearAveragePool": "AveragePool",
}
"""Operators shaped like a standard one on their first inputs; attributes that it does not have are left out."""

IN_STANDARD = frozenset({"SimplifiedLayerNormalization"})
"""Operators that ONNX Runtime has in the standard domain, where ONNX has none."""

Shape = tuple[Dim, ...]
Found = tuple[int | None, Shape | None]
Row = Callable[[ir.Node, "Facts"], list[Found] | None]


def infer(node: ir.Node, facts: Facts) -> list[Found] | None:
    known = node.domain == DOMAIN or node.op_type in IN_STANDARD
    row = _TABLE.get(node.op_type) if known else None
    return None if row is None else row(node, facts)


def as_standard(node: ir.Node) -> onnx.NodeProto:
    """The node itself, or the standard operator whose outputs have the same shapes."""
    proto = ir.serde.serialize_node(node)
    if node.domain != DOMAIN or node.op_type not in NAMESAKES:
        return proto
    schema = onnx.defs.get_schema(NAMESAKES[node.op_type])
    proto.domain, proto.op_type = "", schema.name
    inputs = [proto.input[i] for i in (0,)] if schema.name == "AveragePool" else proto.input[: len(schema.inputs)]
    known = [attribute for attribute in proto.attribute if attribute.name in schema.attributes]
    del proto.input[:], proto.attribute[:]
    proto.input.extend(inputs)
    proto.attribute.extend(known)
    return proto


def element_type(value: ir.Value | None, facts: Facts) -> int | None:
    """Element type of a value, or None."""
    if value is None:
        return None
    proto = facts.types.get(value)
    if proto is not None and proto.HasField("tensor_type"):
        return proto.tensor_type.elem_type or None
    return int(value.dtype) if value.dtype is not None else None


def _like(index: int, *others: int) -> Row:
    """The first output like input `index`, and each further one like the input given for it (−1: unknown)."""

    def row(node: ir.Node, facts: Facts) -> list[Found] | None:
        found: list[Found] = []
        for source in [index, *others][: len(node.outputs)]:
            value = node.inputs[source] if source >= 0 else None
            found.append((element_type(value, facts), facts.shape(value)))
        return found

    return row


def _broadcast(node: ir.Node, facts: Facts) -> list[Found] | None:
    shapes = facts.shape(node.inputs[0]), facts.shape(node.inputs[3])
    kind = element_type(node.inputs[0], facts)
    if shapes[0] is None or shapes[1] is None:
        return [(kind, None)]
    rank = max(len(shape) for shape in shapes if shape is not None)
    left, right = ((1,) * (rank - len(shape or ())) + (shape or ()) for shape in shapes)
    return [(kind, tuple(b if a == 1 else a for a, b in zip(left, right, strict=True)))]


def _attention(node: ir.Node, facts: Facts) -> list[Found] | None:
    data, weight = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    kind = element_type(node.inputs[2 if node.op_type == "QAttention" else 0], facts)
    if data is None or weight is None or len(data) != 3 or not isinstance(weight[-1], int):
        return [(kind, None)]
    sizes = attribute_ints(node, "qkv_hidden_sizes") or [weight[-1] // 3] * 3
    return [(kind, (data[0], data[1], sizes[2])), (kind, None)]


def _heads(node: ir.Node, facts: Facts) -> list[Found] | None:
    """MultiHeadAttention and GroupQueryAttention on separate, flat inputs: as long as the query."""
    query = facts.shape(node.inputs[0])
    value = node.inputs[2] if len(node.inputs) > 2 else None
    width = facts.shape(value)
    kind = element_type(node.inputs[0], facts)
    if query is None or width is None or len(query) != 3 or len(width) != 3 or not isinstance(width[-1], int):
        return [(kind, None)]
    heads = attribute_int(node, "num_heads", 1)
    shared = attribute_int(node, "kv_num_heads", heads)
    return [(kind, (query[0], query[1], width[-1] // shared * heads))]


def _embed(node: ir.Node, facts: Facts) -> list[Found] | None:
    tokens, table = facts.shape(node.inputs[0]), facts.shape(node.inputs[2])
    kind = element_type(node.inputs[2], facts)
    if tokens is None or table is None:
        return [(kind, None)]
    made: Found = (kind, (*tokens, table[-1]))
    return [made, (int(onnx.TensorProto.INT32), tokens[:1]), made]


def _matmul(node: ir.Node, facts: Facts) -> list[Found] | None:
    a, b = facts.shape(node.inputs[0]), facts.shape(node.inputs[1])
    kind = element_type(node.inputs[0], facts)
    if a is None or b is None or min(len(a), len(b)) < 2 or attribute_int(node, "transBatchA", 0):
        return [(kind, None)]
    rows = a[-1] if attribute_int(node, "transA", 0) else a[-2]
    columns = b[-2] if attribute_int(node, "transB", 0) else b[-1]
    rank = max(len(a), len(b)) - 2
    left, right = (1,) * (rank - len(a) + 2) + a[:-2], (1,) * (rank - len(b) + 2) + b[:-2]
    batch = tuple(y if x == 1 else x for x, y in zip(left, right, strict=True))
    return [(kind, (*batch, rows, columns))]


def _qgemm(node: ir.Node, facts: Facts) -> list[Found] | None:
    a, b = facts.shape(node.inputs[0]), facts.shape(node.inputs[3])
    quantised = len(node.inputs) > 8 and node.inputs[8] is not None
    kind = element_type(node.inputs[0], facts) if quantised else int(onnx.TensorProto.FLOAT)
    if a is None or b is None:
        return [(kind, None)]
    rows = a[1] if attribute_int(node, "transA", 0) else a[0]
    return [(kind, (rows, b[0] if attribute_int(node, "transB", 0) else b[1]))]


def _qpool_all(node: ir.Node, facts: Facts) -> list[Found] | None:
    shape = facts.shape(node.inputs[0])
    kind = element_type(node.inputs[0], facts)
    if shape is None:
        return [(kind, None)]
    channel = len(shape) - 1 if attribute_int(node, "channels_last", 0) else 1
    return [(kind, tuple(d if axis in (0, channel) else 1 for axis, d in enumerate(shape)))]


def _qconcat(node: ir.Node, facts: Facts) -> list[Found] | None:
    shapes = [facts.shape(value) for value in node.inputs[2::3]]
    kind = element_type(node.inputs[2], facts)
    if any(shape is None for shape in shapes):
        return [(kind, None)]
    known = [shape for shape in shapes if shape is not None]
    axis = attribute_int(node, "axis", 0) % len(known[0])
    parts = [shape[axis] for shape in known]
    whole: Dim = facts.symbols.fresh()
    if all(isinstance(part, int) for part in parts):
        whole = sum(part for part in parts if isinstance(part, int))
    return [(kind, (*known[0][:axis], whole, *known[0][axis + 1 :]))]


_TABLE: dict[str, Row] = {
    "BiasGelu": _like(0), "FastGelu": _like(0), "SkipLayerNormalization": _like(0, -1, -1, 0),
    "SkipSimplifiedLayerNormalization": _like(0, -1, -1, 0), "SkipRMSNormalization": _like(0, -1, -1, 0),
    "EmbedLayerNormalization": _embed, "Attention": _attention, "QAttention": _attention,
    "MultiHeadAttention": _heads, "GroupQueryAttention": _heads, "FusedMatMul": _matmul, "MoE": _like(0),
    "QLinearAdd": _broadcast, "QLinearMul": _broadcast, "QLinearSigmoid": _like(0), "QLinearLeakyRelu": _like(0),
    "QLinearSoftmax": _like(0), "QGemm": _qgemm, "QLinearGlobalAveragePool": _qpool_all, "QLinearConcat": _qconcat,
    "QuickGelu": _like(0), "Gelu": _like(0), "QMoE": _like(0), "RotaryEmbedding": _like(0),
    "SimplifiedLayerNormalization": _like(0, -1),
}  # fmt: skip
