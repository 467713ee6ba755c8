"""A quantised model without its rounding: what makes the proof of a cut exact for int8 models too.

A sum in another order differs in its last bit, and a quantiser makes a whole quantum of that, 1/255 of the range, in
the dense model as much as in the cut one. So a proof compares both with the rounding taken out: integers become the
real numbers that they stand for on the same grid, everything else stays (weights, scales and zero points per channel,
saturation):

    QuantizeLinear          q = clip(x / s + z, lo, hi)             (the rounding is what is left out)
    DequantizeLinear        x = (q − z) s
    DynamicQuantizeLinear   s = (max(x, 0) − min(x, 0)) / 255,  z = −min(x, 0) / s
    MatMulInteger           (a − z_a)(b − z_b), and likewise ConvInteger
    QLinear… and QGemm      dequantise, the operator on floats, quantise

Names of values stay, and so do operators without a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant, dims, is_constant, length
from prunec.graph.weights import quantised_axis

_INTEGERS = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT32})
_FLOAT = ir.DataType.FLOAT


def is_quantised(model: ir.Model) -> bool:
    """Whether activations are rounded anywhere."""
    return any(
        node.op_type in _ROWS and node.op_type != "DequantizeLinear" and not is_constant(node.inputs[0])
        for node in model.graph
    )


def without_rounding(model: ir.Model) -> ir.Model:
    """A copy of the model in which quantised values are real numbers; the same model where nothing is quantised."""
    if not is_quantised(model):
        return model
    copy = model.clone()
    writer = _Writer(copy.graph)
    for node in list(copy.graph):
        row = _ROWS.get(node.op_type)
        if row is not None and node.domain in ("", "ai.onnx", "com.microsoft"):
            writer.rewrite(node, row)
        else:
            writer.follow(node)
    return copy


class _Writer:
    """Writes nodes in front of `node` and remembers which integer values became real."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.real: dict[ir.Value, ir.DataType | None] = {}
        """Values that are real now, and the type they had."""
        self.count = 0
        self.node: ir.Node | None = None

    # -- nodes --------------------------------------------------------------------------------------------------
    def rewrite(self, node: ir.Node, row: Callable[[_Writer, ir.Node], list[ir.Value]]) -> None:
        """Put what `row` writes in the place of `node`, under the names of its outputs."""
        self.node = node
        made = row(self, node)
        for old, new in zip(node.outputs, made, strict=False):
            name, shape, kind = old.name, old.shape, old.dtype
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            old.name = f"{name}.rounded"
            new.name, new.shape, new.type = name, shape, ir.TensorType(_FLOAT)
            self.real[new] = kind
        self.graph.remove(node, safe=True)

    def follow(self, node: ir.Node) -> None:
        """An operator on integers works on real numbers now, and constants of their type become real with them."""
        kinds = {self.real[value] for value in node.inputs if value is not None and value in self.real}
        if not kinds:
            return
        self.node = node
        for index, value in enumerate(node.inputs):
            if value is not None and is_constant(value) and value.dtype in kinds:
                node.replace_input_with(index, self.add("Cast", value, to=int(_FLOAT)))
        if node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()) in _INTEGERS:
            node.attributes["to"] = ir.AttrInt64("to", int(_FLOAT))
        for output in node.outputs:
            if output.dtype in _INTEGERS:
                self.real[output] = output.dtype
                output.type = ir.TensorType(_FLOAT)

    def add(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        like: Mapping[str, ir.Attr] | None = None,
        domain: str = "",
        **attributes: int | float,
    ) -> ir.Value:
        """A new node in front of the one being rewritten, with its own attributes and those of `like`."""
        self.count += 1
        name = f"prunec.real.{self.count}"
        made = ir.node(op_type, list(inputs), attributes={**(like or {}), **attributes}, domain=domain, name=name)
        made.outputs[0].name = f"prunec.real.{self.count}"
        made.outputs[0].type = ir.TensorType(ir.DataType(int(attributes.get("to", int(_FLOAT)))))
        assert self.node is not None
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def number(self, array: float | np.ndarray) -> ir.Value:
        self.count += 1
        tensor = ir.tensor(np.asarray(array, np.float32), name=f"prunec.real.{self.count}")
        value = ir.Value(
            name=tensor.name, const_value=tensor, type=ir.TensorType(_FLOAT), shape=ir.Shape(np.shape(array))
        )
        self.graph.register_initializer(value)
        return value

    # -- arithmetic ---------------------------------------------------------------------------------------------
    def float_of(self, value: ir.Value) -> ir.Value:
        return value if value in self.real else self.add("Cast", value, to=int(_FLOAT))

    def spread(self, value: ir.Value | None, rank: int, axis: int, size: int | None) -> ir.Value | None:
        """A scale or zero point as floats that broadcast: a vector runs along `axis`, a grid is repeated in blocks."""
        if value is None:
            return None
        array, shape = constant(value), dims(value)
        if array is None:
            known = self.float_of(value)
            if shape is None or len(shape) != 1 or shape[0] == 1 or rank < 2:
                return known
            aim = self.number(np.array([-1 if a == axis else 1 for a in range(rank)]))
            return self.add("Reshape", known, self.add("Cast", aim, to=int(ir.DataType.INT64)))
        array = array.astype(np.float32)
        if array.ndim > 1 and array.ndim == rank and size is not None:
            array = np.repeat(array, math.ceil(size / array.shape[axis]), axis=axis)
        elif array.size > 1:
            array = array.reshape([-1 if a == axis else 1 for a in range(rank)])
        else:
            array = array.reshape(())
        return self.number(array)

    def dequantise(self, q: ir.Value, scale: ir.Value | None, zero: ir.Value | None, axis: int) -> ir.Value:
        rank, size = len(dims(q) or ()), length(q, axis)
        result = self.float_of(q)
        for op_type, parameter in (("Sub", zero), ("Mul", scale)):
            spread = self.spread(parameter, rank, axis, size)
            if spread is not None:
                result = self.add(op_type, result, spread)
        return result

    def quantise(
        self, x: ir.Value, scale: ir.Value | None, zero: ir.Value | None, axis: int, kind: ir.DataType, rank: int,
        size: int | None = None,
    ) -> ir.Value:  # fmt: skip
        """On the grid of `kind`, saturated, not rounded."""
        result = x
        for op_type, parameter in (("Div", scale), ("Add", zero)):
            spread = self.spread(parameter, rank, axis, size)
            if spread is not None:
                result = self.add(op_type, result, spread)
        low, high = RANGES.get(kind, (-math.inf, math.inf))
        return self.add("Min", self.add("Max", result, self.number(low)), self.number(high))


RANGES = {
    ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127), ir.DataType.UINT4: (0, 15), ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT16: (0, 65535), ir.DataType.INT16: (-32768, 32767),
}  # fmt: skip


def _at(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _data(node: ir.Node, index: int = 0) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _kind(node: ir.Node) -> ir.DataType:
    return node.outputs[0].dtype or ir.DataType.UINT8


def _quantize(w: _Writer, node: ir.Node) -> list[ir.Value]:
    x, axis = _data(node), quantised_axis(node)
    kind = _kind(node)
    return [w.quantise(x, _at(node, 1), _at(node, 2), axis, kind, len(dims(x) or ()), length(x, axis))]


def _dequantize(w: _Writer, node: ir.Node) -> list[ir.Value]:
    return [w.dequantise(_data(node), _at(node, 1), _at(node, 2), quantised_axis(node))]


def _dynamic(w: _Writer, node: ir.Node) -> list[ir.Value]:
    x, nothing = _data(node), w.number(0)
    high = w.add("Max", w.add("ReduceMax", x, keepdims=0), nothing)
    low = w.add("Min", w.add("ReduceMin", x, keepdims=0), nothing)
    scale = w.add("Div", w.add("Sub", high, low), w.number(255))
    scale = w.add("Max", scale, w.number(1e-30))  # nothing but zeros stay zeros
    zero = w.add("Div", w.add("Neg", low), scale)
    return [w.add("Add", w.add("Div", x, scale), zero), scale, zero]


def _integer_product(w: _Writer, node: ir.Node) -> list[ir.Value]:
    rank = len(dims(node.inputs[1]) or ())
    a = w.dequantise(_data(node), None, _at(node, 2), len(dims(node.inputs[0]) or ()) - 2)
    b = w.dequantise(_data(node, 1), None, _at(node, 3), rank - 1)
    return [w.add("MatMul", a, b)]


def _integer_conv(w: _Writer, node: ir.Node) -> list[ir.Value]:
    x = w.dequantise(_data(node), None, _at(node, 2), 1)
    weight = w.dequantise(_data(node, 1), None, _at(node, 3), 0)
    return [w.add("Conv", x, weight, like=node.attributes)]


def _bias(w: _Writer, value: ir.Value | None, x_scale: ir.Value | None, w_scale: ir.Value | None) -> ir.Value | None:
    """int32 on the grid of the products."""
    if value is None:
        return None
    result = w.float_of(value)
    for scale in (x_scale, w_scale):
        spread = w.spread(scale, 1, 0, None)
        result = result if spread is None else w.add("Mul", result, spread)
    return result


def _qlinear_conv(w: _Writer, node: ir.Node) -> list[ir.Value]:
    x = w.dequantise(_data(node), _at(node, 1), _at(node, 2), 1)
    weight = w.dequantise(_data(node, 3), _at(node, 4), _at(node, 5), 0)
    y = w.add("Conv", x, weight, _bias(w, _at(node, 8), _at(node, 1), _at(node, 4)), like=node.attributes)
    return [w.quantise(y, _at(node, 6), _at(node, 7), 1, _kind(node), len(dims(node.inputs[0]) or ()))]


def _qlinear_matmul(w: _Writer, node: ir.Node) -> list[ir.Value]:
    ranks = [len(dims(node.inputs[i]) or ()) for i in (0, 3)]
    a = w.dequantise(_data(node), _at(node, 1), _at(node, 2), ranks[0] - 2)
    b = w.dequantise(_data(node, 3), _at(node, 4), _at(node, 5), ranks[1] - 1)
    return [w.quantise(w.add("MatMul", a, b), _at(node, 6), _at(node, 7), max(ranks) - 2, _kind(node), max(ranks))]


def _qgemm(w: _Writer, node: ir.Node) -> list[ir.Value]:
    transposed = bool(node.attributes.get_int("transB", 0) or 0)
    a = w.dequantise(_data(node), _at(node, 1), _at(node, 2), 0)
    b = w.dequantise(_data(node, 3), _at(node, 4), _at(node, 5), 0 if transposed else 1)
    y = w.add("Gemm", a, b, _bias(w, _at(node, 6), _at(node, 1), _at(node, 4)), like=node.attributes)
    return [y if _at(node, 8) is None else w.quantise(y, _at(node, 7), _at(node, 8), 1, _kind(node), 2)]


def _binary(op_type: str) -> Callable[[_Writer, ir.Node], list[ir.Value]]:
    def row(w: _Writer, node: ir.Node) -> list[ir.Value]:
        a = w.dequantise(_data(node), _at(node, 1), _at(node, 2), 0)
        b = w.dequantise(_data(node, 3), _at(node, 4), _at(node, 5), 0)
        return [w.quantise(w.add(op_type, a, b), _at(node, 6), _at(node, 7), 0, _kind(node), 0)]

    return row


def _unary(op_type: str, *, without: tuple[str, ...] = ()) -> Callable[[_Writer, ir.Node], list[ir.Value]]:
    def row(w: _Writer, node: ir.Node) -> list[ir.Value]:
        x = w.dequantise(_data(node), _at(node, 1), _at(node, 2), 0)
        kept = {name: attribute for name, attribute in node.attributes.items() if name not in without}
        return [w.quantise(w.add(op_type, x, like=kept), _at(node, 3), _at(node, 4), 0, _kind(node), 0)]

    return row


def _concat(w: _Writer, node: ir.Node) -> list[ir.Value]:
    parts = [w.dequantise(_data(node, i), _at(node, i + 1), _at(node, i + 2), 0) for i in range(2, len(node.inputs), 3)]
    joined = w.add("Concat", *parts, like={"axis": node.attributes["axis"]})
    return [w.quantise(joined, _at(node, 0), _at(node, 1), 0, _kind(node), 0)]


def _attention(w: _Writer, node: ir.Node) -> list[ir.Value]:
    """(x, w, bias, x scale, w scale, mask, x zero, w zero, past)."""
    x = w.dequantise(_data(node), _at(node, 3), _at(node, 6), 2)
    weight = w.dequantise(_data(node, 1), _at(node, 4), _at(node, 7), 1)
    inputs = [x, weight, _at(node, 2), _at(node, 5), _at(node, 8)]
    return [w.add("Attention", *inputs, domain="com.microsoft", like=node.attributes)]


_ROWS: dict[str, Callable[[_Writer, ir.Node], list[ir.Value]]] = {
    "QuantizeLinear": _quantize, "DequantizeLinear": _dequantize, "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _integer_product, "ConvInteger": _integer_conv, "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul, "QGemm": _qgemm, "QLinearAdd": _binary("Add"), "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"), "QLinearLeakyRelu": _unary("LeakyRelu"), "QLinearConcat": _concat,
    "QAttention": _attention,
    "QLinearSoftmax": _unary("Softmax", without=("opset",)),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool", without=("channels_last",)),
    "QLinearAveragePool": _unary("AveragePool", without=("channels_last",)),
}  # fmt: skip
