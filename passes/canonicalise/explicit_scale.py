"""Fused attention says what it multiplies its scores by; the default is read off the width of a head, which may go."""

from __future__ import annotations

import onnx_ir as ir

from prunec.passes.canonicalise.tools import attribute_int, nodes_of

_HEADS = {("", "Attention"): "q_num_heads", ("com.microsoft", "MultiHeadAttention"): "num_heads"}


class ExplicitScale(ir.passes.InPlacePass):
    """scale = 1/√width where the width is known and no scale is given. Needs shapes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = 0
        for node in nodes_of(model):
            heads = _HEADS.get((node.domain.replace("ai.onnx", ""), node.op_type))
            scale = node.attributes.get("scale")
            is_given = scale is not None and bool(scale.value)
            width = None if heads is None or is_given else _width(node, heads)
            if width is not None:
                node.attributes["scale"] = ir.AttrFloat32("scale", width**-0.5)
                count += 1
        return ir.passes.PassResult(model, modified=count > 0)


def _width(node: ir.Node, heads: str) -> int | None:
    """Of one head of the queries: [batch, heads, length, width] or [batch, length, heads · width]."""
    queries = node.inputs[0]
    shape = None if queries is None else queries.shape
    last = shape[-1] if shape is not None and len(shape) in (3, 4) else None
    number = attribute_int(node, heads, 0) if shape is not None and len(shape) == 3 else 1
    return last // number if isinstance(last, int) and number > 0 else None
