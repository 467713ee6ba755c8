"""Everything between the products: pools, rows, reductions; `moves` has what only moves elements.

One function per operator; `RULES` lists them. A rule lowers its node, defines the outputs and returns the nodes that
went into it. It raises Unsupported before it emits anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import operand
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.batch_matmul import BatchMatMul
from prunec.backends.cpu.kernels.pool import Pool
from prunec.backends.cpu.kernels.rows import LayerNorm, Reduce, ReduceOuter, Reduction, Softmax
from prunec.backends.cpu.lower.fuse import grow
from prunec.backends.cpu.lower.geometry import window_of
from prunec.backends.cpu.lower.moves import (
    concat,
    depth_to_space,
    expand,
    gather,
    ints,
    pad,
    reshape,
    resize,
    same,
    slice_,
    split,
    transpose,
)
from prunec.backends.cpu.lower.products import lower_conv, lower_gemm, lower_matmul
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import expanded, reshaped, transposed
from prunec.graph.shapes import constant

Lowered = Sequence[ir.Node]
Rule = Callable[[State, ir.Node], Lowered]


def elementwise(state: State, node: ir.Node) -> Lowered:
    cluster = grow(node.outputs[0], state.is_known, node)
    inputs = [state.tensor(value) for value in cluster.operands]
    shape = shape_of(cluster.output)
    like = next((t for t in inputs if t.shape == shape and len(shape) == 4), None)
    y = state.result(cluster.output, like=like or state.plain((1,), "float32"))
    value = cluster.value.substitute({i + 1: operand(i, t.dtype) for i, t in enumerate(inputs)})
    state.pointwise(value, inputs, y, cluster.nodes)
    state.define(cluster.output, y)
    return cluster.nodes


def matmul(state: State, node: ir.Node) -> Lowered:
    """With constant weights a product of family A; else a batch of products."""
    weight = constant(node.inputs[1])
    if weight is not None and weight.ndim == 2 and weight.dtype == np.float32 and len(shape_of(node.inputs[0])) >= 2:
        return lower_matmul(state, node, weight.T, None)
    a, b = state.tensor(node.inputs[0]), state.tensor(node.inputs[1])
    if a.dtype != "float32" or len(a.shape) < 2 or len(b.shape) < 2:
        raise Unsupported("a product of vectors or integers")
    cluster = grow(node.outputs[0], state.is_known)
    *batch, rows, columns = shape_of(node.outputs[0])
    if len(batch) > 2:
        raise Unsupported("a product with more than two batch axes")
    batch = [1] * (2 - len(batch)) + batch
    depth = a.shape[-1]
    if b.strides[-1] != 1 and columns != 1:
        b = state.copy(b, state.plain(b.shape, b.dtype))
    y = state.plain(shape_of(cluster.output), "float32")
    operands = [state.tensor(v) for v in cluster.operands]
    held = [_vector_ready(state, expanded(t, (*batch, rows, columns))) for t in operands]
    kernel = BatchMatMul(
        batch=(batch[0], batch[1]), rows=rows, columns=columns, depth=depth,
        a=_access(expanded(a, (*batch, rows, depth))), b=_access(expanded(b, (*batch, depth, columns))),
        y=_access(expanded(y, (*batch, rows, columns))), epilogue=cluster.value,
        operands=tuple(_access(t) for t in held), tile=_tile(state, rows, columns),
    )  # fmt: skip
    state.emit(kernel, [a.buffer, b.buffer, *(t.buffer for t in held), y.buffer], [node, *cluster.nodes])
    state.define(cluster.output, y)
    return [node, *cluster.nodes]


def _tile(state: State, rows: int, columns: int) -> tuple[int, int]:
    """Sums of 6 rows × 2 vectors in 16 registers, 12 × 2 in 32."""
    lanes = state.isa.lanes("float32")
    return min(rows, 12 if state.isa.registers >= 32 else 6), min(columns, 2 * lanes)


def _vector_ready(state: State, x: Tensor) -> Tensor:
    return x if x.strides[-1] in (0, 1) or x.shape[-1] == 1 else state.copy(x, state.plain(x.shape, x.dtype))


def _access(x: Tensor) -> Access:
    return Access(x.buffer.elements, x.offset, x.strides, x.dtype)


def pool(state: State, node: ir.Node) -> Lowered:
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Unsupported("the positions of maxima")
    window = window_of(node)
    counts_border = node.attributes.get_int("count_include_pad", 0) != 0
    if node.attributes.get_int("ceil_mode", 0) != 0 and counts_border and node.op_type == "AveragePool":
        # How much of a window beyond the padding counts is answered differently by every runtime.
        raise Unsupported("an average that counts the border, with ceil_mode")
    x, y = state.tensor(node.inputs[0]), None
    shape = shape_of(node.outputs[0])
    if len(shape) == 3:
        x = x.view((*x.shape[:2], 1, x.shape[2]), (*x.strides[:2], 0, x.strides[2]))
        image = state.image((*shape[:2], 1, shape[2]))
        y = image.view(shape, (*image.strides[:2], image.strides[3]))
    else:
        image = y = state.result(node.outputs[0])
    if x.strides[1] != 1:
        x = state.copy(x, state.image(x.shape))
    order = (0, 2, 3)
    kernel = Pool(
        kind="max" if node.op_type == "MaxPool" else "average",
        grid=(image.shape[0], image.shape[2], image.shape[3]), size=(x.shape[2], x.shape[3]),
        kernel=window.kernel, strides=window.strides, pads=window.pads[:2], dilations=window.dilations,
        channels=x.shape[1], x=x.access(order), y=image.access(order),
        counts_border=counts_border,
    )  # fmt: skip
    state.emit(kernel, [x.buffer, image.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]


def global_pool(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axes = tuple(range(2, len(x.shape)))
    return _reduce(state, node, axes, "mean" if node.op_type == "GlobalAveragePool" else "max", keeps=True)


REDUCTIONS: dict[str, Reduction] = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceL1": "l1",
    "ReduceL2": "l2", "ReduceSumSquare": "sum_square", "ReduceProd": "prod",
}  # fmt: skip


def reduction(state: State, node: ir.Node) -> Lowered:
    rank = len(shape_of(node.inputs[0]))
    axes = ints(node, 1, "axes")
    if axes is None and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        raise Unsupported("a reduction that does nothing")
    chosen = tuple(range(rank)) if not axes else tuple(sorted(axis % rank for axis in axes))
    return _reduce(state, node, chosen, REDUCTIONS[node.op_type], bool(node.attributes.get_int("keepdims", 1)))


def _reduce(state: State, node: ir.Node, axes: tuple[int, ...], kind: Reduction, keeps: bool) -> Lowered:
    x = state.tensor(node.inputs[0])
    if x.dtype != "float32":
        raise Unsupported(f"a reduction of {x.dtype}")
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    y = state.plain([x.shape[axis] for axis in rest], "float32")
    if rest and x.strides[rest[-1]] != 1 and x.strides[axes[-1]] != 1:  # channels last: the dense axis to the end
        dense = [axis for axis in rest if x.strides[axis] == 1 and x.shape[axis] != 1]
        rest = [axis for axis in rest if axis not in dense] + dense
    order = [*rest, *axes]
    outer = x.shape[rest[-1]] if rest else 1
    is_outer = bool(rest) and x.strides[rest[-1]] == 1 and outer > 1 and len(axes) <= 2
    named = {axis: place for place, axis in enumerate(a for a in range(len(x.shape)) if a not in axes)}
    if is_outer:
        leading = rest[:-1]
        ordered = [x.shape[axis] for axis in leading]
        if len([n for n in ordered if n != 1]) <= 1:
            first = next((axis for axis in leading if x.shape[axis] != 1), None)
            own = [None] * (2 - len(axes)) + list(axes)
            source = x.access([first, *own, rest[-1]])
            target = y.access([None if first is None else named[first], named[rest[-1]]])
            extents = tuple(1 if axis is None else x.shape[axis] for axis in own)
            kernel: ReduceOuter | Reduce = ReduceOuter(
                1 if first is None else x.shape[first], (extents[0], extents[1]), outer, source, target, kind
            )
            state.emit(kernel, [x.buffer, y.buffer], [node])
            _define_reduced(state, node, y, axes, keeps)
            return [node]
    view = transposed(x, order)
    rows = reshaped(view, [*(x.shape[axis] for axis in rest), math.prod(x.shape[axis] for axis in axes)])
    if rows is None:
        rows = reshaped(
            state.copy(view, state.plain(view.shape, "float32")),
            [*(x.shape[axis] for axis in rest), math.prod(x.shape[axis] for axis in axes)],
        )
    assert rows is not None
    loops = tuple(range(len(rest)))
    kernel = Reduce(
        tuple(x.shape[axis] for axis in rest) or (1,), rows.shape[-1],
        rows.access([*(loops or [None]), len(rest)]), y.access([named[axis] for axis in rest] or [None]), kind,
    )  # fmt: skip
    state.emit(kernel, [rows.buffer, y.buffer], [node])
    _define_reduced(state, node, y, axes, keeps)
    return [node]


def _define_reduced(state: State, node: ir.Node, y: Tensor, axes: tuple[int, ...], keeps: bool) -> None:
    result = reshaped(y, shape_of(node.outputs[0]))
    assert result is not None
    state.define(node.outputs[0], result)


def softmax(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axis = (node.attributes.get_int("axis", -1) or 0) % len(x.shape)
    if x.dtype != "float32":
        raise Unsupported(f"a softmax of {x.dtype}")
    order = [a for a in range(len(x.shape)) if a != axis] + [axis]
    back = [order.index(a) for a in range(len(x.shape))]
    x = transposed(x, order)
    if x.strides[-1] != 1:
        x = state.copy(x, state.plain(x.shape, "float32"))
    y = state.plain(x.shape, "float32")
    loops = list(range(len(x.shape) - 1))
    kernel = Softmax(x.shape[:-1] or (1,), x.shape[-1], _row_access(x, loops), _row_access(y, loops))
    state.emit(kernel, [x.buffer, y.buffer], [node])
    state.define(node.outputs[0], transposed(y, back))
    return [node]


def _row_access(x: Tensor, loops: list[int]) -> Access:
    """Strides of the loops around a row, and 1 along it, even where the row has one element."""
    strides = [x.strides[axis] for axis in loops] or [0]
    return Access(x.buffer.elements, x.offset, (*strides, 1), x.dtype)


def layer_norm(state: State, node: ir.Node) -> Lowered:
    x = state.tensor(node.inputs[0])
    axis = (node.attributes.get_int("axis", -1) or 0) % len(x.shape)
    if axis != len(x.shape) - 1 or any(v.uses() for v in node.outputs[1:]):
        raise Unsupported("a layer norm over several axes, or one whose mean is read")
    if x.strides[-1] != 1:
        x = state.copy(x, state.plain(x.shape, "float32"))
    y = state.plain(x.shape, "float32")
    scale = state.tensor(node.inputs[1])
    has_shift = len(node.inputs) > 2 and node.inputs[2] is not None
    shift = state.tensor(node.inputs[2]) if has_shift else state.weights(np.zeros(x.shape[-1], np.float32))
    if scale.size != x.shape[-1] or not scale.is_plain() or not shift.is_plain():
        raise Unsupported("a layer norm whose scale is broadcast")
    loops = list(range(len(x.shape) - 1))
    kernel = LayerNorm(
        x.shape[:-1] or (1,), x.shape[-1], _row_access(x, loops), _row_access(y, loops),
        node.attributes.get_float("epsilon", 1e-5) or 0.0,
    )  # fmt: skip
    state.emit(kernel, [x.buffer, scale.buffer, shift.buffer, y.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]


RULES: dict[str, Rule] = {
    "Conv": lower_conv, "Gemm": lower_gemm, "MatMul": matmul, "MaxPool": pool, "AveragePool": pool,
    "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, **dict.fromkeys(REDUCTIONS, reduction),
    "Softmax": softmax, "LayerNormalization": layer_norm, "Reshape": reshape, "Flatten": reshape, "Squeeze": reshape,
    "Unsqueeze": reshape, "Identity": same, "Dropout": same, "Transpose": transpose, "Slice": slice_, "Split": split,
    "Expand": expand, "Concat": concat, "Gather": gather, "Pad": pad, "Resize": resize,
    "DepthToSpace": depth_to_space,
}  # fmt: skip
"""Operators of the default domain; the elementwise ones are in `elementwise.ELEMENTWISE`."""
