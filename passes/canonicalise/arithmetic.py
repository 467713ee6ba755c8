"""Small constants evaluated at once in numpy: the operators that exporters build shapes from.

`evaluate(node, inputs)` → output arrays, or None when the operator has no row here, an input is too large, or the
case is one where numpy and ONNX differ; such nodes are left to `fold_constants`. Integer division truncates and
`Mod` takes the sign of the divisor (fmod=0) or of the dividend (fmod=1), as in ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.tools import attribute_int, attribute_ints

LIMIT = 4096  # elements, of inputs and outputs
Arrays = Sequence[np.ndarray | None]


class Unsupported(Exception):
    """This case is not for numpy."""


def evaluate(node: ir.Node, inputs: Arrays) -> list[np.ndarray] | None:
    row = _TABLE.get(node.op_type)
    if row is None or any(array is not None and array.size > LIMIT for array in inputs):
        return None
    try:
        with np.errstate(all="ignore"):
            result = row(node, inputs)
    except (Unsupported, ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, OverflowError):
        return None  # an invalid node: ONNX Runtime will say so in its own words
    outputs = [np.asarray(array) for array in (result if isinstance(result, list) else [result])]
    return None if any(array.size > LIMIT for array in outputs) else outputs


def _need(inputs: Arrays, index: int) -> np.ndarray:
    array = inputs[index]
    if array is None:
        raise Unsupported
    return array


def _optional(inputs: Arrays, index: int) -> np.ndarray | None:
    return inputs[index] if index < len(inputs) else None


def axes_of(node: ir.Node, inputs: Arrays, index: int = 1) -> list[int] | None:
    """The axes of Squeeze, Unsqueeze and reductions: attribute before opset 13 (18), input since."""
    given = _optional(inputs, index)
    return attribute_ints(node, "axes") if given is None else [int(axis) for axis in given.reshape(-1)]


def _binary(function: Callable[..., np.ndarray]) -> Callable[[ir.Node, Arrays], np.ndarray]:
    def row(node: ir.Node, inputs: Arrays) -> np.ndarray:
        left, right = _need(inputs, 0), _need(inputs, 1)
        if left.dtype != right.dtype:
            raise Unsupported
        return function(left, right)

    return row


def _unary(function: Callable[..., np.ndarray]) -> Callable[[ir.Node, Arrays], np.ndarray]:
    return lambda node, inputs: function(_need(inputs, 0))


def _div(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if left.dtype.kind == "f":
        return np.asarray(np.divide(left, right))
    if not right.all():
        raise Unsupported
    return np.asarray(np.sign(left) * np.sign(right) * (np.abs(left) // np.abs(right)), left.dtype)


def _mod(node: ir.Node, inputs: Arrays) -> np.ndarray:
    left, right = _need(inputs, 0), _need(inputs, 1)
    if not right.all():
        raise Unsupported
    return np.asarray(np.fmod(left, right) if attribute_int(node, "fmod", 0) else np.mod(left, right))


def _variadic(function: Callable[..., np.ndarray]) -> Callable[[ir.Node, Arrays], np.ndarray]:
    def row(node: ir.Node, inputs: Arrays) -> np.ndarray:
        result = _need(inputs, 0)
        for index in range(1, len(inputs)):
            result = function(result, _need(inputs, index))
        return result

    return row


def _cast(node: ir.Node, inputs: Arrays) -> np.ndarray:
    array = _need(inputs, 0)
    target = ir.DataType(attribute_int(node, "to", 0)).numpy()
    if target.kind not in "fiub" or array.dtype.kind not in "fiub":
        raise Unsupported
    if array.dtype.kind == "f" and target.kind in "iu":
        limits = np.iinfo(target)
        if not np.isfinite(array).all() or (array >= limits.max).any() or (array < limits.min).any():
            raise Unsupported
    return array.astype(target)


def _concat(node: ir.Node, inputs: Arrays) -> np.ndarray:
    return np.concatenate([_need(inputs, i) for i in range(len(inputs))], axis=node.attributes["axis"].as_int())


def _gather(node: ir.Node, inputs: Arrays) -> np.ndarray:
    return np.take(_need(inputs, 0), _need(inputs, 1), axis=attribute_int(node, "axis", 0))


def slice_arguments(node: ir.Node, inputs: Arrays) -> tuple[Arrays, int]:
    """(starts, ends, axes, steps) as arrays (None: not known or not given) and how many inputs are given."""
    if "starts" in node.attributes:
        given = [attribute_ints(node, name) for name in ("starts", "ends", "axes")]
        return [None if ints is None else np.array(ints, np.int64) for ints in given] + [None], 4
    return [_optional(inputs, index) for index in range(1, 5)], len(inputs) - 1


def slices(
    rank: int, starts: np.ndarray, ends: np.ndarray, axes: np.ndarray | None, steps: np.ndarray | None
) -> tuple[slice, ...]:
    """numpy slices for ONNX Slice. An end far below zero with a negative step means "through the first element"."""
    result = [slice(None)] * rank
    for position, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = position if axes is None else int(axes.reshape(-1)[position])
        step = 1 if steps is None else int(steps.reshape(-1)[position])
        result[axis] = slice(start, None if step < 0 and end < -(2**30) else end, step)
    return tuple(result)


def _slice(node: ir.Node, inputs: Arrays) -> np.ndarray:
    data = _need(inputs, 0)
    (starts, ends, axes, steps), _ = slice_arguments(node, inputs)
    if starts is None or ends is None:
        raise Unsupported
    return np.asarray(data[slices(data.ndim, starts.reshape(-1), ends.reshape(-1), axes, steps)])


def _unsqueeze(node: ir.Node, inputs: Arrays) -> np.ndarray:
    axes = axes_of(node, inputs)
    if axes is None:
        raise Unsupported
    return np.expand_dims(_need(inputs, 0), tuple(axes))


def _squeeze(node: ir.Node, inputs: Arrays) -> np.ndarray:
    axes = axes_of(node, inputs)
    return np.squeeze(_need(inputs, 0), None if axes is None else tuple(axes))


def _range(node: ir.Node, inputs: Arrays) -> np.ndarray:
    start, limit, delta = (_need(inputs, index).reshape(()) for index in range(3))
    count = max(math.ceil((limit - start) / delta), 0)
    if count > LIMIT:
        raise Unsupported
    return np.asarray(start + np.arange(count).astype(start.dtype) * delta)


def _constant_of_shape(node: ir.Node, inputs: Arrays) -> np.ndarray:
    shape = _need(inputs, 0).tolist()
    if math.prod(shape) > LIMIT:
        raise Unsupported
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    return np.full(shape, fill.reshape(-1)[0], fill.dtype)


def _reshape(node: ir.Node, inputs: Arrays) -> np.ndarray:
    data, shape = _need(inputs, 0), _need(inputs, 1).tolist()
    if not attribute_int(node, "allowzero", 0):
        shape = [data.shape[axis] if dim == 0 else dim for axis, dim in enumerate(shape)]
    return np.reshape(data, shape)


def _expand(node: ir.Node, inputs: Arrays) -> np.ndarray:
    data = _need(inputs, 0)
    shape = np.broadcast_shapes(data.shape, tuple(_need(inputs, 1).tolist()))
    if math.prod(shape) > LIMIT:
        raise Unsupported
    return np.broadcast_to(data, shape)


def _tile(node: ir.Node, inputs: Arrays) -> np.ndarray:
    data, repeats = _need(inputs, 0), _need(inputs, 1).tolist()
    if data.size * math.prod(repeats) > LIMIT:
        raise Unsupported
    return np.tile(data, repeats)


def _reduce(function: Callable[..., np.ndarray]) -> Callable[[ir.Node, Arrays], np.ndarray]:
    def row(node: ir.Node, inputs: Arrays) -> np.ndarray:
        data, axes = _need(inputs, 0), axes_of(node, inputs)
        if data.dtype.kind == "f":
            raise Unsupported  # another order of summation
        if not axes and attribute_int(node, "noop_with_empty_axes", 0):
            return data
        keep = bool(attribute_int(node, "keepdims", 1))
        return function(data, axis=tuple(axes) if axes else None, keepdims=keep).astype(data.dtype)

    return row


def _transpose(node: ir.Node, inputs: Arrays) -> np.ndarray:
    return np.transpose(_need(inputs, 0), attribute_ints(node, "perm"))


def _where(node: ir.Node, inputs: Arrays) -> np.ndarray:
    return np.where(_need(inputs, 0), _need(inputs, 1), _need(inputs, 2))


def _size(node: ir.Node, inputs: Arrays) -> np.ndarray:
    return np.array(_need(inputs, 0).size, np.int64)


_TABLE: dict[str, Callable[[ir.Node, Arrays], np.ndarray | list[np.ndarray]]] = {
    "Abs": _unary(np.abs), "Neg": _unary(np.negative), "Not": _unary(np.logical_not),
    "Floor": _unary(np.floor), "Ceil": _unary(np.ceil), "Sqrt": _unary(np.sqrt), "Identity": _unary(np.asarray),
    "Add": _binary(np.add), "Sub": _binary(np.subtract), "Mul": _binary(np.multiply), "Div": _binary(_div),
    "Equal": _binary(np.equal), "Greater": _binary(np.greater), "GreaterOrEqual": _binary(np.greater_equal),
    "Less": _binary(np.less), "LessOrEqual": _binary(np.less_equal),
    "And": _binary(np.logical_and), "Or": _binary(np.logical_or), "Xor": _binary(np.logical_xor),
    "Max": _variadic(np.maximum), "Min": _variadic(np.minimum), "Mod": _mod,
    "Cast": _cast, "Concat": _concat, "Gather": _gather, "Slice": _slice, "Size": _size,
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Range": _range, "ConstantOfShape": _constant_of_shape,
    "Reshape": _reshape, "Expand": _expand, "Tile": _tile, "Transpose": _transpose, "Where": _where,
    "ReduceProd": _reduce(np.prod), "ReduceSum": _reduce(np.sum), "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}  # fmt: skip
