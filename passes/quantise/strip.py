"""A QDQ model as the float model that it stands for, and the grids that its activations were on.

Constants behind DequantizeLinear become the real numbers that they are; a QuantizeLinear and the DequantizeLinear that
undoes it go, and what they read takes their place. Weights quantised in blocks stay.

Quantisers clip, and tools leave ReLU and ReLU6 out where that does their work: a range that begins at 0 becomes a Clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant, dims, is_constant
from prunec.graph.weights import dequantised as in_float
from prunec.graph.weights import quantised_axis
from prunec.passes.quantise.nodes import add_constant

PAIR = ("QuantizeLinear", "DequantizeLinear")
SIGNED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "BatchNormalization"})
"""May give what is below 0."""
CLIP_OPSET = 11
"""The first with limits as inputs."""
INTEGERS = frozenset(
    {"QLinearConv", "QLinearMatMul", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
)


@dataclass(frozen=True)
class Stripped:
    """`grids`: (scale, zero point) by the name of the value that was on it, the zero point in its own dtype.

    `layers`: names of the nodes that read a weight in 8 bits and an activation on a grid.
    """

    model: ir.Model
    grids: dict[str, tuple[float, np.ndarray]] = field(default_factory=dict)
    layers: tuple[str, ...] = ()


def strip(model: ir.Model) -> Stripped:
    """A copy of `model` in float; quantisers that are no such pair stay."""
    copy = model.clone()
    graph = copy.graph
    layers = tuple(str(node.name) for node in graph if _is_layer(node))
    grids: dict[str, tuple[float, np.ndarray]] = {}
    for node in list(graph):
        if node.op_type == PAIR[1] and is_constant(node.inputs[0]) and len(dims(node.inputs[1]) or ()) < 2:
            _fold(graph, node)
    for node in list(graph):
        first = _undone(node)
        if first is None:
            continue
        value, output = first.inputs[0], node.outputs[0]
        assert value is not None
        scale, zero = _grid(node)
        if str(value.name) not in grids:
            value = _clipped(graph, first, value, scale, zero)
        grids[str(value.name)] = scale, zero
        if output.is_graph_output():
            _rename(graph, output, value)
        else:
            output.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        if not first.outputs[0].uses() and not first.outputs[0].is_graph_output():
            graph.remove(first, safe=True)
    _drop_unused(graph)
    return Stripped(copy, grids, layers)


def float_twin(model: ir.Model) -> Stripped | None:
    """`strip` of a model in static 8-bit QDQ; None of a float model, and of one that keeps some other quantiser."""
    if not is_qdq(model) or model.opset_imports.get("", 0) < CLIP_OPSET:
        return None
    if any(value.is_graph_input() and value.is_graph_output() for value in model.graph.inputs):
        return None
    found = strip(model)
    kinds = {zero.dtype for _, zero in found.grids.values()}
    if computes_in_integers(found.model) or not kinds <= {np.dtype(np.uint8), np.dtype(np.int8)}:
        return None
    return found


def computes_in_integers(model: ir.Model) -> bool:
    """Whether a quantiser or an operator on integers is in its main graph."""
    return any(node.op_type in INTEGERS or node.op_type in PAIR for node in model.graph)


def dequantised(model: ir.Model) -> ir.Model:
    """`model` in float; itself where nothing is quantised."""
    return strip(model).model if any(node.op_type == "DequantizeLinear" for node in model.graph) else model


def is_qdq(model: ir.Model) -> bool:
    """Whether a layer reads an activation and a weight that were quantised."""
    return any(_is_layer(node) for node in model.graph)


def _is_layer(node: ir.Node) -> bool:
    makers = [value.producer() for value in list(node.inputs)[:2] if value is not None]
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(makers) != 2:
        return False
    first, second = makers
    if first is None or second is None or second.op_type != "DequantizeLinear" or not is_constant(second.inputs[0]):
        return False
    return _undone(first) is not None


def _undone(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear that this DequantizeLinear undoes, with the same constant scale and zero point."""
    if node.op_type != PAIR[1] or node.inputs[0] is None:
        return None
    first = node.inputs[0].producer()
    if first is None or first.op_type != PAIR[0]:
        return None
    for index in (1, 2):
        both = [constant(own.inputs[index]) if len(own.inputs) > index else None for own in (first, node)]
        if both[0] is None or both[1] is None:
            if index == 1 or (both[0] is None) != (both[1] is None):
                return None
        elif both[0].size != 1 or both[0].reshape(-1)[0] != both[1].reshape(-1)[0]:
            return None
    return first


def _grid(node: ir.Node) -> tuple[float, np.ndarray]:
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    assert scale is not None
    return float(scale.reshape(-1)[0]), np.zeros((), np.uint8) if zero is None else zero.reshape(())


def _clipped(graph: ir.Graph, first: ir.Node, value: ir.Value, scale: float, zero: np.ndarray) -> ir.Value:
    """`value`, or it behind a Clip to the range where that begins at 0 and `value` may not."""
    lowest, highest = (np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max) if zero.dtype.kind in "iu" else (1, 0)
    producer = value.producer()
    if int(zero) != lowest or producer is None or producer.op_type not in SIGNED:
        return value
    kind = np.float32 if value.dtype is None else value.dtype.numpy()
    limits = [
        add_constant(graph, f"{value.name}.{name}", np.array(limit, kind))
        for name, limit in (("least", 0.0), ("most", (highest - lowest) * scale))
    ]
    clip = ir.node("Clip", [value, *limits], name=f"{value.name}.clip")
    clip.outputs[0].name, clip.outputs[0].type, clip.outputs[0].shape = f"{value.name}.clipped", value.type, value.shape
    graph.insert_before(first, clip)
    return clip.outputs[0]


def _fold(graph: ir.Graph, node: ir.Node) -> None:
    data, scale = constant(node.inputs[0]), constant(node.inputs[1])
    assert data is not None and scale is not None
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    array = in_float(data, scale, zero, quantised_axis(node)).astype(scale.dtype)
    output = node.outputs[0]
    value = add_constant(graph, f"{output.name}.float", array)
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _rename(graph: ir.Graph, output: ir.Value, value: ir.Value) -> None:
    """`value` takes the place and the name of a graph output."""
    name = output.name
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    output.name, value.name = f"{name}.quantised", name


def _drop_unused(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
