"""Weights behind a short chain of operators: quantised, cast or transposed constants.

An int8 weight reaches its layer through DequantizeLinear, a fake-quantised one through QuantizeLinear and
DequantizeLinear, an exported Linear layer through a Transpose besides. Such a value is a function of constants alone,
so it is a weight: whoever uses it may ask for its axes, and the ids travel back to the constant (`Flow.use`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant, dims, is_constant

QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_CHAIN = QUANTISERS | {"Transpose", "Cast"}


def is_weight(value: ir.Value | None) -> bool:
    """Whether `value` is a constant, or made of one by operators that keep its positions apart."""
    if value is None or is_constant(value):
        return value is not None
    node = value.producer()
    return node is not None and _keeps_positions(node) and is_weight(node.inputs[0])


def source(value: ir.Value) -> ir.Value:
    """The constant that a weight is made of."""
    for node in chain(value):
        first = node.inputs[0]
        assert first is not None
        value = first
    return value


def chain(value: ir.Value) -> Iterator[ir.Node]:
    """The nodes between a weight and its constant, from the layer's side."""
    while not is_constant(value):
        node = value.producer()
        assert node is not None and node.inputs[0] is not None
        yield node
        value = node.inputs[0]


def _keeps_positions(node: ir.Node) -> bool:
    known = node.domain in ("", "ai.onnx", "com.microsoft") and node.op_type in _CHAIN
    if not known or dims(node.inputs[0]) is None:
        return False
    if node.op_type not in QUANTISERS:
        return node.op_type == "Cast" or not is_constant(node.inputs[0])
    return all(value is None or is_constant(value) for value in node.inputs[1:]) and blocks_fit(node)


def permutation(node: ir.Node) -> list[int]:
    """Where each axis of a Transpose's output comes from."""
    found = node.attributes.get("perm")
    return list(found.as_ints()) if found is not None else [*reversed(range(len(dims(node.inputs[0]) or ())))]


def block_size(node: ir.Node) -> int:
    """How many positions share a scale, 0 where all or one do."""
    return node.attributes.get_int("block_size", 0) or 0


def blocks_fit(node: ir.Node) -> bool:
    """Whether the quantisation blocks of a (de)quantiser divide its axis; true where there are none."""
    block = block_size(node)
    length = (dims(node.inputs[0]) or ())[quantised_axis(node)] if block else 0
    return not block or (isinstance(length, int) and length % block == 0)


def quantised_axis(node: ir.Node) -> int:
    """The axis that scales and zero points of a (de)quantiser run along."""
    axis = int(node.attributes.get_int("axis", 1))
    return axis % max(len(dims(node.inputs[0]) or ()), 1)


@dataclass(frozen=True)
class Quantised:
    """Where an operator on integers has a weight's scale and zero point, and the weight's output axis."""

    scale: int | None
    zero: int
    axis: int


_OPERANDS = {
    ("QLinearConv", 3): Quantised(4, 5, 0),
    ("QLinearMatMul", 3): Quantised(4, 5, -1),
    ("QGemm", 3): Quantised(4, 5, -1),
    ("ConvInteger", 1): Quantised(None, 3, 0),
    ("MatMulInteger", 1): Quantised(None, 3, -1),
    ("QAttention", 1): Quantised(4, 7, -1),
}


def weight_array(node: ir.Node, index: int, *, as_stored: bool = False) -> np.ndarray:
    """The weight that `node` reads at `index`, dequantised where it is quantised.

    `as_stored` leaves out transpositions: the axes are those of the constant. A fake quantiser's rounding and casts
    are left out too: they change too little to matter to a score.
    """
    value = node.inputs[index]
    assert value is not None
    nodes = list(chain(value))
    array = constant(source(value))
    assert array is not None
    quantised = _OPERANDS.get((node.op_type, index))
    if quantised is not None:
        axis = quantised.axis % array.ndim
        if node.op_type == "QGemm" and node.attributes.get_int("transB"):
            axis = 0
        scale = None if quantised.scale is None else _input(node, quantised.scale)
        array = dequantised(array, scale, _input(node, quantised.zero), axis)
    for made_by in reversed(nodes):
        if made_by.op_type == "DequantizeLinear" and is_constant(made_by.inputs[0]):
            array = dequantised(array, _input(made_by, 1), _input(made_by, 2), quantised_axis(made_by))
        elif made_by.op_type == "Transpose" and not as_stored:
            array = np.transpose(array, permutation(made_by))
    return array


@dataclass(frozen=True)
class SeenData:
    """The data a layer sees: a value of the graph and, where that holds integers, what makes numbers of them."""

    value: ir.Value
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None

    def numbers(self, array: np.ndarray) -> np.ndarray:
        """`array` of this value as floating point; scales per row are left out."""
        if array.dtype.kind not in "iu":
            return array
        zero, scale = (None if p is None or p.size > 1 else p for p in (self.zero, self.scale))
        return dequantised(array, scale, zero, 0)


def seen_data(node: ir.Node, index: int) -> SeenData:
    """The data that `node` reads at `index`; of data that is quantised on the fly, what it is quantised from."""
    value = node.inputs[index]
    assert value is not None
    producer = value.producer()
    if producer is not None and producer.op_type == "DynamicQuantizeLinear" and producer.inputs[0] is not None:
        return SeenData(producer.inputs[0])
    if node.op_type in ("QLinearConv", "QLinearMatMul", "QGemm"):
        return SeenData(value, _input(node, index + 1), _input(node, index + 2))
    if node.op_type == "QAttention":
        return SeenData(value, _input(node, 3), _input(node, 6))
    if node.op_type in ("ConvInteger", "MatMulInteger"):
        return SeenData(value, None, _input(node, 2 + index))
    return SeenData(value)


def _input(node: ir.Node, index: int) -> np.ndarray | None:
    return constant(node.inputs[index]) if index < len(node.inputs) else None


def dequantised(
    array: np.ndarray, scale: np.ndarray | None, zero: np.ndarray | None, axis: int, dtype: type = np.float32
) -> np.ndarray:
    """(q − zero) · scale, as `dtype`. Vectors run along `axis`; arrays of the same rank hold one value per block."""
    result: np.ndarray = array.astype(dtype)
    for parameter, is_zero in ((zero, True), (scale, False)):
        if parameter is None:
            continue
        value: np.ndarray = parameter.astype(dtype)
        if value.ndim == array.ndim and value.ndim > 1:
            value = np.repeat(value, math.ceil(array.shape[axis] / value.shape[axis]), axis=axis)
        elif value.size > 1:
            value = value.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
        result = result - value if is_zero else result * value
    return result
