"""Types and shapes of the outputs of If, Loop and Scan, from the subgraphs (which the walk has been through).

If: what both branches agree on. Loop and Scan: a carried value keeps its shape where the body returns the shape it
was given; a scanned output gets a new axis of unknown length in front (Scan: at `scan_output_axes`, default 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from prunec.passes.canonicalise.symbols import Dim
from prunec.passes.canonicalise.tools import attribute_int, attribute_ints, is_op

if TYPE_CHECKING:
    from prunec.passes.canonicalise.facts import Facts

Shape = tuple[Dim, ...]


def infer(node: ir.Node, facts: Facts) -> bool:
    """Write the outputs' types and shapes into `facts`; False for any other operator."""
    if is_op(node, "If"):
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        for output, first, second in zip(node.outputs, branches[0].outputs, branches[1].outputs, strict=False):
            _set_type(output, first, facts)
            facts.shapes[output] = _agreed(facts.shape(first), facts.shape(second), facts)
        return True
    if is_op(node, "Loop"):
        body = node.attributes["body"].as_graph()
        carried = len(node.inputs) - 2
        _carry(node, body.outputs[1:], body.inputs[2:], node.inputs[2:], carried, [0] * len(node.outputs), facts)
        return True
    if is_op(node, "Scan"):
        body = node.attributes["body"].as_graph()
        carried = len(body.inputs) - attribute_int(node, "num_scan_inputs", 0)
        axes = attribute_ints(node, "scan_output_axes") or [0] * len(node.outputs)
        _carry(node, body.outputs, body.inputs, node.inputs, carried, [0] * carried + axes, facts)
        return True
    return False


def _carry(
    node: ir.Node,
    results: Sequence[ir.Value],
    states: Sequence[ir.Value],
    initial: Sequence[ir.Value | None],
    carried: int,
    axes: list[int],
    facts: Facts,
) -> None:
    for index, (output, result) in enumerate(zip(node.outputs, results, strict=False)):
        _set_type(output, result, facts)
        shape = facts.shape(result)
        if index < carried:
            before = facts.shape(initial[index])
            fixed = facts.shape(states[index]) == shape
            facts.shapes[output] = _agreed(before, shape, facts) if fixed or before == shape else None
        elif shape is None:
            facts.shapes[output] = None
        else:
            axis = axes[index] if axes[index] >= 0 else axes[index] + len(shape) + 1
            facts.shapes[output] = (*shape[:axis], facts.symbols.fresh(), *shape[axis:])


def _agreed(first: Shape | None, second: Shape | None, facts: Facts) -> Shape | None:
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(a if a == b else facts.symbols.fresh() for a, b in zip(first, second, strict=True))


def _set_type(output: ir.Value, source: ir.Value, facts: Facts) -> None:
    proto = facts.types.get(source)
    if proto is None:
        proto = onnx.TypeProto()
        if source.const_value is not None:
            proto.tensor_type.elem_type = int(source.const_value.dtype)
        elif source.type is not None:
            ir.serde.serialize_type_into(proto, source.type)
        else:
            return
    facts.types[output] = proto
