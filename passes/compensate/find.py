"""Which nodes of the pruned model are layers that can be refitted, and why the others with weights are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunec.graph.cost import FLOAT_TYPES
from prunec.graph.rules.base import attribute, given
from prunec.graph.shapes import dims, is_constant
from prunec.passes.compensate.layers import ConvLayer, GemmLayer, Layer, MatMulLayer, NormLayer, StackLayer
from prunec.passes.compensate.recurrent_layer import GATES, RecurrentLayer, recurrent_layer

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", *GATES)


@dataclass(frozen=True)
class Skipped:
    """A node with weights that stays as it is."""

    node: str
    reason: str


@dataclass(frozen=True)
class Residual:
    """`layer output + operand`, computed by `add`: where the operand's error can be corrected too."""

    operand: str
    add: ir.Node


def find_layers(model: ir.Model) -> tuple[list[Layer | RecurrentLayer], list[Skipped]]:
    """Layers in graph order. Nodes whose weight is computed at run time are not listed at all."""
    layers: list[Layer | RecurrentLayer] = []
    skipped: list[Skipped] = []
    for node in model.graph:
        if node.op_type not in WEIGHTED or node.domain not in ("", "ai.onnx"):
            continue
        found = _layer(node)
        if isinstance(found, Skipped):
            skipped.append(found)
        elif found is not None:
            layers.append(found)
    return layers, skipped


def _layer(node: ir.Node) -> Layer | RecurrentLayer | Skipped | None:
    if node.op_type in GATES:
        found = recurrent_layer(node)
        return Skipped(node.name or "", found) if isinstance(found, str) else found
    index = 0 if node.op_type == "MatMul" and is_constant(node.inputs[0]) else 1
    weight = node.inputs[index]
    if not is_constant(weight) or (node.op_type == "MatMul" and is_constant(node.inputs[1 - index])):
        return None
    assert weight is not None
    name = node.name or ""
    if weight.dtype not in FLOAT_TYPES:
        return Skipped(name, "the weight is not floating point")
    is_tied = len(list(weight.uses())) > 1 and node.op_type != "BatchNormalization"  # those are copied, being small
    if is_tied or weight.is_graph_output():
        return Skipped(name, f"its weight {weight.name} is shared with other nodes")
    if node.op_type in ("Conv", "ConvTranspose"):
        if given(node, 2) and not is_constant(node.inputs[2]):
            return Skipped(name, "its bias is computed at run time")
        return ConvLayer(node, 0, 1, 1, 1, can_shift=True)
    if node.op_type == "Gemm":
        scaled = attribute(node, "beta", 1.0) != 0 and attribute(node, "alpha", 1.0) != 0
        shift = scaled and (not given(node, 2) or _is_row(node.inputs[2]))
        return GemmLayer(node, 0, 1, 0 if attribute(node, "transA", 0) else 1, 1, can_shift=bool(shift))
    if node.op_type == "MatMul":
        return _matmul(node, index)
    if attribute(node, "training_mode", 0) or not all(is_constant(node.inputs[i]) for i in range(1, 5)):
        return Skipped(name, "its parameters are computed at run time")
    return NormLayer(node, 0, 1, 1, 1, can_shift=True)


def _matmul(node: ir.Node, index: int) -> Layer | Skipped:
    weight, data = dims(node.inputs[index]), dims(node.inputs[1 - index])
    if index == 1 and _is_stack(weight, data):
        return StackLayer(node, 0, 1, -1, -1, can_shift=False)
    if weight is None or len(weight) != 2 or data is None or len(data) < 2:
        return Skipped(node.name or "", "a product with a stack of matrices or with a vector")
    axis = -1 if index == 1 else -2
    shift = _constant_add(node.outputs[0], axis)
    return MatMulLayer(node, 1 - index, index, axis, axis, can_shift=shift is not None, shift=shift)


def _is_stack(weight: Sequence[object] | None, data: Sequence[object] | None) -> bool:
    """Matrices [E, C, M], each for its own slice of the data, or all for the same."""
    if weight is None or data is None or len(weight) < 3 or len(data) < 2 or any(d != 1 for d in weight[:-3]):
        return False
    return len(data) < 3 or (isinstance(data[-3], int) and data[-3] in (1, weight[-3]))


def _is_row(value: ir.Value | None) -> bool:
    """Whether a Gemm's addend is the same for all rows."""
    shape = dims(value)
    return is_constant(value) and shape is not None and (len(shape) < 2 or shape[0] == 1)


def _only_user(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _constant_add(value: ir.Value, axis: int) -> ir.Node | None:
    """The Add of a per-channel constant that alone reads `value`."""
    user, shape = _only_user(value), dims(value)
    if user is None or user.op_type != "Add" or shape is None:
        return None
    for addend in user.inputs:
        own = dims(addend)
        if is_constant(addend) and own and len(own) <= len(shape) and -axis <= len(own) and own[axis] == shape[axis]:
            lengths = [d for i, d in enumerate(own) if i != len(own) + axis]
            return user if all(d == 1 for d in lengths) else None
    return None


def find_residual(layer: Layer | RecurrentLayer, order: dict[str, int]) -> Residual | None:
    """The addition that a layer's output goes to and to nothing else, if its other operand is there before the layer.

    `order`: place of every node in the graph by name.
    """
    if isinstance(layer, RecurrentLayer):
        return None
    value = layer.node.outputs[0]
    if isinstance(layer, MatMulLayer) and layer.shift is not None:
        value = layer.shift.outputs[0]
    add = _only_user(value)
    if add is None or add.op_type != "Add":
        return None
    other = add.inputs[1] if add.inputs[0] is value else add.inputs[0]
    if other is None or other is value or is_constant(other) or dims(other) is None or dims(other) != dims(value):
        return None
    producer = other.producer()
    if producer is not None and order[producer.name or ""] > order[layer.name]:
        return None
    return Residual(other.name or "", add)
