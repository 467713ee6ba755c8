"""QuantizeLinear, DequantizeLinear and their constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def add_pair(graph: ir.Graph, value: ir.Value, scale: float, zero: np.ndarray) -> ir.Value:
    """What QuantizeLinear and DequantizeLinear make of `value`, behind whatever makes it.

    `zero`: a scalar of the integers' dtype, the zero point.
    """
    step = add_constant(graph, f"{value.name}.scale", np.array(scale, np.float32))
    point = add_constant(graph, f"{value.name}.zero", zero)
    first = ir.node("QuantizeLinear", [value, step, point], name=f"{value.name}.quantise")
    second = ir.node("DequantizeLinear", [first.outputs[0], step, point], name=f"{value.name}.dequantise")
    first.outputs[0].name, second.outputs[0].name = f"{value.name}.{zero.dtype}", f"{value.name}.dequantised"
    assert point.dtype is not None
    first.outputs[0].type, second.outputs[0].type = ir.TensorType(point.dtype), ir.TensorType(ir.DataType.FLOAT)
    first.outputs[0].shape = second.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), [first, second])
    else:
        graph.insert_after(producer, [first, second])
    return second.outputs[0]


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer; of `array`'s shape, also where that has no axes."""
    tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
