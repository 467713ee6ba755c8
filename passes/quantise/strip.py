"""A QDQ model as the float model that it stands for, and the grids that its activations were on.

Constants behind DequantizeLinear become the real numbers that they are; a QuantizeLinear and the DequantizeLinear that
undoes it go, and what they read takes their place. Weights quantised in blocks stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant, dims, is_constant
from prunec.graph.weights import quantised_axis

PAIR = ("QuantizeLinear", "DequantizeLinear")


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
        grids[str(value.name)] = _grid(node)
        if output.is_graph_output():
            _rename(graph, output, value)
        else:
            output.replace_all_uses_with(value)
        graph.remove(node, safe=True)
        if not first.outputs[0].uses() and not first.outputs[0].is_graph_output():
            graph.remove(first, safe=True)
    _drop_unused(graph)
    return Stripped(copy, grids, layers)


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


def _fold(graph: ir.Graph, node: ir.Node) -> None:
    data, scale = constant(node.inputs[0]), constant(node.inputs[1])
    assert data is not None and scale is not None
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    shape = [1] * data.ndim
    if scale.size > 1:
        shape[quantised_axis(node)] = -1
    whole = data.astype(np.float64) - (0 if zero is None else zero.astype(np.float64).reshape(shape))
    array = (whole * scale.astype(np.float64).reshape(shape)).astype(scale.dtype)
    output = node.outputs[0]
    value = ir.Value(
        name=f"{output.name}.float",
        const_value=ir.Tensor(np.ascontiguousarray(array).reshape(data.shape)),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(data.shape),
    )
    graph.register_initializer(value)
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
