"""Evaluate a model in another floating-point precision: float64 for proofs, float32 for half-precision models.

`with_floats(model, DOUBLE)` rewrites a copy: every float initializer, tensor attribute, input and output, and every
`to`/`dtype` attribute that names a float type. Large initializers are converted when their numbers are asked for, and
not kept. The float64 copy runs in ONNX's own reference implementation (`reference`), for ONNX Runtime has few float64
kernels. That is slow, so the caller asks `reference_cost` first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from prunec.graph.cost import FLOAT_TYPES, model_macs
from prunec.graph.mapped import LAZY_BYTES
from prunec.graph.shapes import dims

POOL_COST = 20_000
"""One output of a window operator costs the reference, which loops in Python, what this many MACs do (measured)."""

_LOOPS = frozenset({"MaxPool", "AveragePool", "LpPool", "ConvTranspose", "RoiAlign", "GridSample"})
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})


def with_floats(model: ir.Model, dtype: ir.DataType) -> ir.Model:
    """A copy of the model in which every floating-point number has type `dtype`."""
    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype in FLOAT_TYPES:
                value.const_value = _tensor(value.const_value, dtype)
        for node in graph:
            _convert_attributes(node, dtype)
        for value in _values(graph):
            if value.dtype in FLOAT_TYPES:
                value.type = ir.TensorType(dtype)
    return copy


def has_half_precision(model: ir.Model) -> bool:
    """Whether a value anywhere is float16 or bfloat16, which no tolerance of 1e-5 fits."""
    half = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return any(value.dtype in half for graph in model.graphs() for value in _values(graph))


def reference_cost(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> float:
    """Multiply-accumulates of one run on `feeds`, with `POOL_COST` for every output that is computed in a Python loop.

    A dynamic axis counts as 1 in the model's cost, so the cost is multiplied by what the largest input has there.
    """
    loops = (node.outputs[0] for node in model.graph if node.op_type in _LOOPS)
    cost = model_macs(model) + POOL_COST * sum(_size(value) for value in loops)
    inputs = [value for value in model.graph.inputs if value.name in feeds]
    return cost * max((feeds[str(value.name)].size / max(_size(value), 1) for value in inputs), default=1.0)


def _size(value: ir.Value) -> int:
    return math.prod(d if isinstance(d, int) else 1 for d in dims(value) or ())


def _tensor(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    def converted() -> ir.TensorProtocol:
        return ir.Tensor(tensor.numpy().astype(dtype.numpy()), dtype=dtype, name=tensor.name)

    if tensor.nbytes < LAZY_BYTES:
        return converted()
    return ir.LazyTensor(converted, dtype, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def _convert_attributes(node: ir.Node, dtype: ir.DataType) -> None:
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        default = ir.tensor(np.zeros(1, np.float32))
        node.attributes["value"] = ir.AttrTensor("value", default)
    for name, attr in list(node.attributes.items()):
        if attr.type == ir.AttributeType.TENSOR and attr.value.dtype in FLOAT_TYPES:
            node.attributes[name] = ir.AttrTensor(name, _tensor(attr.value, dtype))
        elif name in _TYPE_ATTRIBUTES and attr.type == ir.AttributeType.INT and attr.value in FLOAT_TYPES:
            node.attributes[name] = ir.AttrInt64(name, dtype.value)
        elif node.op_type == "Constant" and name in ("value_float", "value_floats"):
            del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(np.array(attr.value, dtype.numpy())))


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
