"""CastLike(x, y) → Cast(x, to=type of y): only the type of y is read, so y need not be known or even computed."""

from __future__ import annotations

import onnx_ir as ir

from prunec.passes.canonicalise.tools import is_op, nodes_of


def replace_cast_like(model: ir.Model) -> int:
    """Rewrite every CastLike whose second input has a known type; returns how many."""
    count = 0
    for node in nodes_of(model):
        like = node.inputs[1] if is_op(node, "CastLike") else None
        if like is None or like.dtype is None:
            continue
        node.op_type = "Cast"
        node.resize_inputs(1)
        saturate = node.attributes.get("saturate")
        node.attributes.clear()
        node.attributes["to"] = ir.AttrInt64("to", int(like.dtype))
        if saturate is not None:
            node.attributes["saturate"] = saturate
        count += 1
    return count
