"""What a model costs: multiply-accumulates per layer and parameters per initializer.

The MACs of a node are a sum of products of lengths, `mac_products`; one table of formulas serves the count of a model
as it is and the planner's count of a model as it would be after a cut. Conv, ConvTranspose, Gemm, MatMul and Einsum
(constant and run-time operands alike), recurrent layers, and what ONNX Runtime makes of them (fused, on integers,
attention with its projections) are counted; a dimension without a static length counts as 1, so a dynamic batch gives
the cost of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from prunec.graph.rules.einsum import terms
from prunec.graph.shapes import dims

FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})

PARAMETER_TYPES = FLOAT_TYPES | {
    *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4),
    *(ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT4E2M1),
}
"""Types of weights. Integers of 32 and 64 bits are shapes, indices and the biases of quantised layers."""

OUTPUT = -1
Factor = tuple[int, int]
"""(input index or OUTPUT, axis): the length of one axis of one operand."""


def mac_products(node: ir.Node) -> list[list[Factor]]:
    """The MACs of one run of `node` as Σ Π of lengths; empty for operators that are not products.

    Conv: pixels of the output × weight. Gemm: rows × weight. MatMul: output × contracted axis. LSTM, GRU, RNN:
    steps × batch × (W + R). Einsum: one factor per letter.
    """
    formula = (_FORMULAS if node.domain in ("", "ai.onnx") else _CONTRIB).get(node.op_type)
    if formula is None or node.domain not in ("", "ai.onnx", "com.microsoft"):
        return []
    products = formula(node)
    known = all(dims(operand(node, index)) is not None for product in products for index, _ in product)
    return products if known else []


def operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.outputs[0] if index == OUTPUT else node.inputs[index]


def _axes(node: ir.Node, index: int) -> list[Factor]:
    return [(index, axis) for axis in range(len(dims(operand(node, index)) or ()))]


def _conv(node: ir.Node) -> list[list[Factor]]:
    pixels = _axes(node, 0 if node.op_type == "ConvTranspose" else OUTPUT)
    return [[*pixels[:1], *pixels[2:], *_axes(node, 3 if node.op_type == "QLinearConv" else 1)]]


def _gemm(node: ir.Node) -> list[list[Factor]]:
    return [[(OUTPUT, 0), *_axes(node, 3 if node.op_type == "QGemm" else 1)]]


def _matmul(node: ir.Node) -> list[list[Factor]]:
    contracted = -2 if node.attributes.get_int("transA", 0) else -1
    return [[*_axes(node, OUTPUT), *_axes(node, 0)[contracted:][:1]]]


def _attention(node: ir.Node) -> list[list[Factor]]:
    """Projections; scores and mixing, which are as long as the output is wide each."""
    tokens, length = [(0, 0), (0, 1)], (0, 1)
    return [[*tokens, *_axes(node, 1)], [*tokens, length, (OUTPUT, 2)], [*tokens, length, (OUTPUT, 2)]]


def _experts(node: ir.Node) -> list[list[Factor]]:
    """k experts for each token."""
    tokens = _axes(node, 0)[:-1]
    weights = [index for index in (2, 4, 6) if index < len(node.inputs) and node.inputs[index] is not None]
    return [[*tokens, (index, 1), (index, 2)] for index in weights] * int(node.attributes.get_int("k", 1))


def _mixing(node: ir.Node) -> list[list[Factor]]:
    """Scores and mixing of attention without projections, on [batch, length, heads · width]."""
    if len(dims(operand(node, 0)) or ()) != 3 or len(dims(operand(node, 1)) or ()) != 3:
        return []
    return [[(0, 0), (0, 1), (1, 1), (0, 2)], [(0, 0), (0, 1), (1, 1), (OUTPUT, 2)]]


def _recurrent(node: ir.Node) -> list[list[Factor]]:
    return [[(0, 0), (0, 1), *_axes(node, weight)] for weight in (1, 2)]


def _einsum(node: ir.Node) -> list[list[Factor]]:
    inputs, _ = terms(node)
    letters: dict[str, Factor] = {}
    for index, term in enumerate(inputs):
        for axis, letter in enumerate(term):
            letters.setdefault(letter, (index, axis))
    return [[*letters.values()]] if "." not in "".join(inputs) else []


_FORMULAS: dict[str, Callable[[ir.Node], list[list[Factor]]]] = {
    "Conv": _conv, "ConvTranspose": _conv, "QLinearConv": _conv, "ConvInteger": _conv,
    "Gemm": _gemm, "MatMul": _matmul, "QLinearMatMul": _matmul, "MatMulInteger": _matmul,
    "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent, "Einsum": _einsum, "Attention": _mixing,
}  # fmt: skip
_CONTRIB: dict[str, Callable[[ir.Node], list[list[Factor]]]] = {
    "FusedConv": _conv, "FusedGemm": _gemm, "QGemm": _gemm, "FusedMatMul": _matmul,
    "Attention": _attention, "QAttention": _attention, "MultiHeadAttention": _mixing, "GroupQueryAttention": _mixing,
    "MoE": _experts,
}  # fmt: skip


def node_macs(node: ir.Node) -> int:
    """Multiply-accumulates of one run of `node` (0 for operators that are not products)."""
    return sum(math.prod(_length(node, factor) for factor in product) for product in mac_products(node))


def _length(node: ir.Node, factor: Factor) -> int:
    index, axis = factor
    dim = (dims(operand(node, index)) or ())[axis]
    return dim if isinstance(dim, int) else 1


def model_macs(model: ir.Model) -> int:
    """Multiply-accumulates of one run of the main graph."""
    return sum(node_macs(node) for node in model.graph)


def parameter_count(model: ir.Model) -> int:
    """Number of values in the floating-point and quantised initializers of the main graph."""
    return sum(
        math.prod(int(d) for d in value.const_value.shape.numpy())
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype in PARAMETER_TYPES
    )
