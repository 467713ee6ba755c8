"""What is computed twice from the same constants is computed once: weights of unrolled loops stay tied.

A loop that is traced step by step transposes, casts or slices its weights anew in every step; folded, each step would
have a copy of its own. Constants that merely look alike are left apart: nobody said that they are one.
"""

from __future__ import annotations

import onnx_ir as ir

from prunec.passes.canonicalise.fold_constants import RANDOM
from prunec.passes.canonicalise.tools import STANDARD, constant, nodes_of

_LIST = 64
"""Up to so many integers (axes, shapes, bounds) are known by what they are, not by where they stand."""


class ShareConstants(ir.passes.InPlacePass):
    """Runs before constants are folded."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        first: dict[tuple[object, ...], ir.Node] = {}
        fixed: set[ir.Value] = set()
        count = 0
        for node in nodes_of(model):
            if not _is_plain(node) or not all(v is None or v in fixed or constant(v) is not None for v in node.inputs):
                continue
            fixed.update(node.outputs)
            attributes = sorted(f"{name} {found.type} {found.value}" for name, found in node.attributes.items())
            key = (node.graph, node.domain, node.op_type, len(node.outputs), *map(_known, node.inputs), *attributes)
            other = first.setdefault(key, node)
            if other is not node and not any(output.is_graph_output() for output in node.outputs):
                count += 1
                for old, new in zip(node.outputs, other.outputs, strict=True):
                    old.replace_all_uses_with(new)
        return ir.passes.PassResult(model, modified=count > 0)


def _is_plain(node: ir.Node) -> bool:
    """Its attributes have a short text that says all of them, and it gives the same every time."""
    long = (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS, ir.AttributeType.SPARSE_TENSOR)
    bodies = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    has_inputs = any(value is not None for value in node.inputs)
    plain = not any(found.type in long + bodies or found.is_ref() for found in node.attributes.values())
    return node.domain in STANDARD and node.op_type not in RANDOM and has_inputs and plain


def _known(value: ir.Value | None) -> object:
    array = constant(value) if value is not None and value.dtype is not None and value.dtype.is_integer() else None
    return value if array is None or array.size > _LIST else (array.dtype.str, array.shape, array.tobytes())
