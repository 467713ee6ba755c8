"""What a model costs: multiply-accumulates per layer and parameters per initializer.

The MACs of a node are a sum of products of lengths, `mac_products`; one table of formulas serves the count of a model
as it is and the planner's count of a model as it would be after a cut. Conv, ConvTranspose, Gemm, MatMul and Einsum
(constant and run-time operands alike) and recurrent layers are counted; a dimension without a static length counts
as 1, so a dynamic batch gives the cost of one sample.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from prunec.graph.rules.einsum import terms
from prunec.graph.shapes import dims

FLOAT_TYPES = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})

OUTPUT = -1
Factor = tuple[int, int]
"""(input index or OUTPUT, axis): the length of one axis of one operand."""


def mac_products(node: ir.Node) -> list[list[Factor]]:
    """The MACs of one run of `node` as Σ Π of lengths; empty for operators that are not products.

    Conv: pixels of the output × weight. Gemm: rows × weight. MatMul: output × contracted axis. LSTM, GRU, RNN:
    steps × batch × (W + R). Einsum: one factor per letter.
    """
    if node.domain not in ("", "ai.onnx"):
        return []
    formula = {
        "Conv": _conv,
        "ConvTranspose": _conv,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "LSTM": _recurrent,
        "GRU": _recurrent,
        "RNN": _recurrent,
        "Einsum": _einsum,
    }.get(node.op_type)
    if formula is None:
        return []
    products = formula(node)
    known = all(dims(operand(node, index)) is not None for product in products for index, _ in product)
    return products if known else []


def operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.outputs[0] if index == OUTPUT else node.inputs[index]


def _axes(node: ir.Node, index: int) -> list[Factor]:
    return [(index, axis) for axis in range(len(dims(operand(node, index)) or ()))]


def _conv(node: ir.Node) -> list[list[Factor]]:
    pixels = _axes(node, OUTPUT if node.op_type == "Conv" else 0)
    return [[*pixels[:1], *pixels[2:], *_axes(node, 1)]]


def _gemm(node: ir.Node) -> list[list[Factor]]:
    return [[(OUTPUT, 0), *_axes(node, 1)]]


def _matmul(node: ir.Node) -> list[list[Factor]]:
    return [[*_axes(node, OUTPUT), *_axes(node, 0)[-1:]]]


def _recurrent(node: ir.Node) -> list[list[Factor]]:
    return [[(0, 0), (0, 1), *_axes(node, weight)] for weight in (1, 2)]


def _einsum(node: ir.Node) -> list[list[Factor]]:
    inputs, _ = terms(node)
    letters: dict[str, Factor] = {}
    for index, term in enumerate(inputs):
        for axis, letter in enumerate(term):
            letters.setdefault(letter, (index, axis))
    return [[*letters.values()]] if "." not in "".join(inputs) else []


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
    """Number of floating-point values in the initializers of the main graph."""
    return sum(
        math.prod(int(d) for d in value.const_value.shape.numpy())
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype in FLOAT_TYPES
    )
