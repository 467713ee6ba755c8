"""What a model costs: multiply-accumulates per layer and parameters per initializer.

MACs count Conv, ConvTranspose, Gemm, MatMul and Einsum (constant and run-time operands alike) and recurrent layers;
dimensions without a static length count as 1, so a dynamic batch gives the cost of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from prunec.graph.rules.einsum import terms
from prunec.graph.shapes import Dim, dims

FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def _size(shape: Sequence[Dim] | None) -> int:
    return math.prod(d if isinstance(d, int) else 1 for d in shape or ())


def node_macs(node: ir.Node) -> int:
    """Multiply-accumulates of one run of `node` (0 for operators that are not products)."""
    if node.domain not in ("", "ai.onnx"):
        return 0
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = dims(node.inputs[1])
        pixels = dims(node.outputs[0] if node.op_type == "Conv" else node.inputs[0])
        if weight is None or pixels is None:
            return 0
        positions = _size(pixels[:1]) * _size(pixels[2:])
        return positions * _size(weight)
    if node.op_type == "Gemm":
        weight = dims(node.inputs[1])
        return _size((dims(node.outputs[0]) or (1,))[:1]) * _size(weight)
    if node.op_type == "MatMul":
        left, out = dims(node.inputs[0]), dims(node.outputs[0])
        return _size(out) * _size(left[-1:]) if left and out is not None else 0
    if node.op_type in ("LSTM", "GRU", "RNN"):
        steps, weight, recurrence = dims(node.inputs[0]), dims(node.inputs[1]), dims(node.inputs[2])
        return _size((steps or ())[:2]) * (_size(weight) + _size(recurrence))
    if node.op_type == "Einsum":
        inputs, _ = terms(node)
        shapes = [dims(value) or () for value in node.inputs]
        pairs = (pair for term, shape in zip(inputs, shapes, strict=True) for pair in zip(term, shape, strict=True))
        lengths = dict(pairs)
        return _size(tuple(lengths.values()))
    return 0


def model_macs(model: ir.Model) -> int:
    """Multiply-accumulates of one run of the main graph."""
    return sum(node_macs(node) for node in model.graph)


def parameter_count(model: ir.Model) -> int:
    """Number of floating-point values in the initializers of the main graph."""
    return sum(
        math.prod(int(d) for d in value.const_value.shape.numpy())
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype in FLOAT_TYPES
    )
