"""From a layer's weight input back to the constant that TensorRT reads, and which of its axes is reduced.

TensorRT recognises 2:4 weights through QuantizeLinear, DequantizeLinear, Cast, Transpose and Identity only. Anything
else between the constant and the layer (a mask left as `Mul`, a Reshape, Slice, Concat or Gather) ends its analysis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

THROUGH = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Identity", "Transpose"})
STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Found:
    """The constant behind a weight input: `order[i]` is the constant's axis that is axis i of the input.

    `zero`: what counts as zero in it (the zero point of a quantised weight).
    """

    value: ir.Value
    tensor: ir.TensorProtocol
    order: tuple[int, ...]
    zero: int = 0


@dataclass(frozen=True)
class NotFound:
    """Why there is none, and what to change."""

    reason: str
    change: str


def find_weight(value: ir.Value | None, *, rank: int | None = None) -> Found | NotFound:
    """Walk back from an input of a layer. `rank` is checked where it is given."""
    turns: list[tuple[int, ...] | None] = []
    zero = 0
    while value is not None:
        tensor = _constant(value)
        if tensor is not None:
            shape = tensor.shape.numpy()
            if rank is not None and len(shape) != rank:
                return NotFound(f"its weight has {len(shape)} axes, not {rank}", "give it the operator's own shape")
            return Found(value, tensor, _order(turns, len(shape)), zero)
        node = value.producer()
        if node is None:
            return NotFound("its weight is an input of the graph", "store the weight in the model as an initializer")
        if node.domain not in STANDARD or node.op_type not in THROUGH:
            return NotFound(*_stopped(node))
        if node.op_type == "DequantizeLinear":
            zero = _zero_point(node)
            if zero:
                change = "quantise the weight symmetrically"
                return NotFound(f"its zero point is {zero}, TensorRT takes 0 only", change)
        if node.op_type == "Transpose":
            order = node.attributes.get_ints("perm", None)
            turns.append(None if order is None else tuple(order))
        value = node.inputs[0]
    return NotFound("it has no weight", "")


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node."""
    if value.is_initializer() and not value.is_graph_input():
        return value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain not in STANDARD:
        return None
    attribute = node.attributes.get("value")
    if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
        return None
    found: ir.TensorProtocol = attribute.value
    return found


def _order(turns: list[tuple[int, ...] | None], rank: int) -> tuple[int, ...]:
    """Compose the transpositions, the one next to the layer first: axis i of the input is axis order[i]."""
    order = tuple(range(rank))
    for turn in turns:
        step = tuple(reversed(range(rank))) if turn is None else turn
        order = tuple(step[axis] for axis in order)
    return order


def _zero_point(node: ir.Node) -> int:
    point = node.inputs[2] if len(node.inputs) > 2 else None
    tensor = None if point is None else _constant(point)
    if tensor is None:
        return 0
    values = np.asarray(tensor.numpy()).astype(np.int64)
    return int(values.flat[np.abs(values).argmax()]) if values.size else 0


def _stopped(node: ir.Node) -> tuple[str, str]:
    name = f"{node.op_type} {node.name}" if node.name else node.op_type
    if all(value is None or _is_fixed(value) for value in node.inputs):
        change = "fold it into a constant; prunec compile does so"
        what = "a mask left in the graph" if node.op_type == "Mul" else "the weight is computed"
        return f"between weight and layer there is {name}: {what}, TensorRT sees no constant", change
    return f"its weight is computed at run time by {name}", "no product of activations can have sparse weights"


def _is_fixed(value: ir.Value) -> bool:
    """Whether everything that `value` is computed from is constant."""
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if found in seen or _constant(found) is not None:
            continue
        seen.add(found)
        node = found.producer()
        if node is None or (not node.inputs and node.op_type != "Constant"):
            return False
        waiting += [other for other in node.inputs if other is not None]
    return True
