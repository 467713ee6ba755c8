"""Operators spelled out in others that have rules: normalisations, products of computed matrices, odds and ends.

Each function writes the nodes and returns the last value, or None where it leaves the node as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.lower.einsum import einsum
from prunec.backends.cpu.lower.weights import weights_of
from prunec.backends.cpu.lower.writer import Writer
from prunec.graph.shapes import constant, dims

Spelled = ir.Value | None


def spell_out(model: ir.Model) -> None:
    """Every node that one of the functions below knows, in place."""
    for node in list(model.graph):
        rule = _SPELLINGS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            continue
        if any(_shape(value) is None for value in (*node.inputs, *node.outputs[:1]) if value is not None):
            continue
        if node.outputs[0].dtype != ir.DataType.FLOAT:
            continue
        writer = Writer(model, node)
        last = rule(writer, node)
        if last is not None:
            writer.finish(last)


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    found = dims(value)
    if found is None or any(not isinstance(n, int) for n in found):
        return None
    return tuple(int(n) for n in found if isinstance(n, int))


def _known(value: ir.Value | None) -> tuple[int, ...]:
    shape = _shape(value)
    assert shape is not None
    return shape


def _batch_norm(w: Writer, node: ir.Node) -> Spelled:
    """y = x · a + b per channel, which the kernel before it computes in passing."""
    found = [constant(value) for value in node.inputs[1:]]
    shape = _known(node.inputs[0])
    if any(array is None for array in found) or len(shape) < 2:
        return None
    scale, shift, mean, variance = (array.astype(np.float64) for array in found if array is not None)
    factor = scale / np.sqrt(variance + (node.attributes.get_float("epsilon", 1e-5) or 0.0))
    per_channel = (-1, *[1] * (len(shape) - 2))
    product = w.constant(factor.reshape(per_channel).astype(np.float32))
    added = w.constant((shift - mean * factor).reshape(per_channel).astype(np.float32))
    return w.op("Add", [w.op("Mul", [node.inputs[0], product], shape), added], shape)


def _normalised(w: Writer, x: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    """(x − mean) / √(variance + ε) over `axes`; the variance from the differences, as in `LayerNorm`."""
    shape = _known(x)
    small = [1 if axis in axes else n for axis, n in enumerate(shape)]
    count = math.prod(shape[axis] for axis in axes)
    difference = w.op("Sub", [x, w.reduce("ReduceMean", x, axes)], shape)
    squares = w.reduce("ReduceSumSquare", difference, axes)
    mean = w.op("Mul", [squares, w.constant(np.array(1 / count, np.float32))], small)
    deviation = w.op("Sqrt", [w.op("Add", [mean, w.constant(np.array(epsilon, np.float32))], small)], small)
    return w.op("Mul", [difference, w.op("Reciprocal", [deviation], small)], shape)


def _scaled(w: Writer, x: ir.Value, scale: ir.Value, shift: ir.Value) -> ir.Value:
    """x · scale + shift per channel (axis 1)."""
    shape = _known(x)
    per_channel = (shape[1], *[1] * (len(shape) - 2))
    product = w.op("Mul", [x, w.reshape(scale, per_channel)], shape)
    return w.op("Add", [product, w.reshape(shift, per_channel)], shape)


def _instance_norm(w: Writer, node: ir.Node) -> Spelled:
    x, scale, shift = node.inputs
    assert x is not None and scale is not None and shift is not None
    axes = range(2, len(_known(x)))
    epsilon = node.attributes.get_float("epsilon", 1e-5) or 0.0
    return _scaled(w, _normalised(w, x, list(axes), epsilon), scale, shift)


def _group_norm(w: Writer, node: ir.Node) -> Spelled:
    """Scale and shift have one number per group before operator set 21, one per channel since."""
    x, scale, shift = node.inputs
    assert x is not None and scale is not None and shift is not None
    shape, groups = _known(x), node.attributes.get_int("num_groups", 1) or 1
    n, channels, *size = shape
    own = channels // groups
    split = w.reshape(x, (n, groups, own, math.prod(size)))
    normal = w.reshape(_normalised(w, split, [2, 3], node.attributes.get_float("epsilon", 1e-5) or 0.0), shape)
    if _known(scale) != (channels,):
        spread = []
        for value in (scale, shift):
            column = w.reshape(value, (groups, 1))
            target = w.constant(np.array([groups, own], np.int64))
            spread.append(w.reshape(w.op("Expand", [column, target], (groups, own)), (channels,)))
        scale, shift = spread
    return _scaled(w, normal, scale, shift)


def _mean_variance(w: Writer, node: ir.Node) -> Spelled:
    x = node.inputs[0]
    assert x is not None
    return _normalised(w, x, list(node.attributes.get_ints("axes") or (0, 2, 3)), 1e-9)


def _layer_norm(w: Writer, node: ir.Node) -> Spelled:
    """Only what the kernel for rows does not take: several axes."""
    x, scale = node.inputs[0], node.inputs[1]
    assert x is not None
    shape = _known(x)
    axis = (node.attributes.get_int("axis", -1) or 0) % len(shape)
    if axis == len(shape) - 1 and _known(scale) == shape[-1:]:
        return None
    axes = list(range(axis, len(shape)))
    y = w.op("Mul", [_normalised(w, x, axes, node.attributes.get_float("epsilon", 1e-5) or 0.0), scale], shape)
    shift = node.inputs[2] if len(node.inputs) > 2 else None
    return y if shift is None else w.op("Add", [y, shift], shape)


def _lp_norm(w: Writer, node: ir.Node) -> Spelled:
    """x / ‖x‖ along one axis, 0 where the norm is."""
    x = node.inputs[0]
    assert x is not None
    shape = _known(x)
    axis = (node.attributes.get_int("axis", -1) or 0) % len(shape)
    kind = "ReduceL1" if node.attributes.get_int("p", 2) == 1 else "ReduceL2"
    small = [1 if place == axis else n for place, n in enumerate(shape)]
    norm = w.reduce(kind, x, [axis])
    zero = w.constant(np.array(0, np.float32))
    is_zero = w.op("Equal", [norm, zero], small, ir.DataType.BOOL)
    safe = w.op("Where", [is_zero, w.constant(np.array(1, np.float32)), norm], small)
    return w.op("Div", [x, safe], shape)


def _log_softmax(w: Writer, node: ir.Node) -> Spelled:
    """(x − max) − log Σ exp(x − max)."""
    x = node.inputs[0]
    assert x is not None
    shape = _known(x)
    axis = (node.attributes.get_int("axis", -1) or 0) % len(shape)
    small = [1 if place == axis else n for place, n in enumerate(shape)]
    shifted = w.op("Sub", [x, w.reduce("ReduceMax", x, [axis])], shape)
    total = w.reduce("ReduceSum", w.op("Exp", [shifted], shape), [axis])
    return w.op("Sub", [shifted, w.op("Log", [total], small)], shape)


def _log_sum_exp(w: Writer, node: ir.Node) -> Spelled:
    """max + log Σ exp(x − max), or log Σ x."""
    x, y = node.inputs[0], _known(node.outputs[0])
    assert x is not None
    shape = _known(x)
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    own = node.attributes.get_ints("axes") if axes is None else axes.tolist()
    if not own and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return None
    chosen = sorted(int(axis) % len(shape) for axis in own or range(len(shape)))
    small = [1 if axis in chosen else n for axis, n in enumerate(shape)]
    if node.op_type == "ReduceLogSum":
        return w.reshape(w.op("Log", [w.reduce("ReduceSum", x, chosen)], small), y)
    top = w.reduce("ReduceMax", x, chosen)
    exponential = w.op("Exp", [w.op("Sub", [x, top], shape)], shape)
    total = w.op("Log", [w.reduce("ReduceSum", exponential, chosen)], small)
    return w.reshape(w.op("Add", [total, top], small), y)


def _gemm(w: Writer, node: ir.Node) -> Spelled:
    """α · A · B + β · C where B or C is computed or A is transposed; `lower_gemm` has the others."""
    a, b = node.inputs[0], node.inputs[1]
    c = node.inputs[2] if len(node.inputs) > 2 else None
    assert a is not None and b is not None
    shape = _known(node.outputs[0])
    transposes = [node.attributes.get_int(name, 0) or 0 for name in ("transA", "transB")]
    added = None if c is None else weights_of(c)
    is_row = c is None or (added is not None and added.size in (1, shape[1]) and _known(c)[-1:] != (1,))
    if weights_of(b) is not None and not transposes[0] and is_row:
        return None
    a, b = (w.transpose(v, [1, 0]) if turned else v for v, turned in zip((a, b), transposes, strict=True))
    y = w.op("MatMul", [a, b], shape)
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    if alpha != 1:
        y = w.op("Mul", [y, w.constant(np.array(alpha, np.float32))], shape)
    if c is None:
        return y
    if beta != 1:
        c = w.op("Mul", [c, w.constant(np.array(beta, np.float32))], _known(c))
    return w.op("Add", [y, c], shape)


def _matmul(w: Writer, node: ir.Node) -> Spelled:
    """Products with a vector: the vector as a matrix of one row or column."""
    a, b = node.inputs
    assert a is not None and b is not None
    left, right = _known(a), _known(b)
    if len(left) > 1 and len(right) > 1:
        return None
    if len(left) == 1:
        a, left = w.reshape(a, (1, *left)), (1, *left)
    if len(right) == 1:
        b, right = w.reshape(b, (*right, 1)), (*right, 1)
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    return w.reshape(w.op("MatMul", [a, b], (*batch, left[-2], right[-1])), _known(node.outputs[0]))


def _local_response(w: Writer, node: ir.Node) -> Spelled:
    """x / (bias + α/size · Σ x²)^β over `size` channels around each."""
    x = node.inputs[0]
    assert x is not None
    shape, size = _known(x), node.attributes.get_int("size", 1) or 1
    n, channels, *rest = shape
    flat = (n, 1, channels, math.prod(rest))
    squares = w.reshape(w.op("Mul", [x, x], shape), flat)
    pads = [(size - 1) // 2, 0, size // 2, 0]
    mean = w.op("AveragePool", [squares], flat, kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    alpha = w.constant(np.array(node.attributes.get_float("alpha", 1e-4), np.float32))
    bias = w.constant(np.array(node.attributes.get_float("bias", 1.0), np.float32))
    beta = w.constant(np.array(node.attributes.get_float("beta", 0.75), np.float32))
    base = w.op("Add", [w.op("Mul", [w.reshape(mean, shape), alpha], shape), bias], shape)
    return w.op("Div", [x, w.op("Pow", [base, beta], shape)], shape)


_SPELLINGS: dict[str, Callable[[Writer, ir.Node], Spelled]] = {
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance, "LayerNormalization": _layer_norm, "LpNormalization": _lp_norm,
    "LogSoftmax": _log_softmax, "ReduceLogSumExp": _log_sum_exp, "ReduceLogSum": _log_sum_exp, "Gemm": _gemm,
    "MatMul": _matmul, "Einsum": einsum, "LRN": _local_response,
}  # fmt: skip
