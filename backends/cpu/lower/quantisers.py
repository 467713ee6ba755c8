"""QuantizeLinear and DequantizeLinear: what lies between them is kept in 8 bits where int8 kernels read it.

A value behind DequantizeLinear is not computed. It is `Held`: kernels for int8 read its bytes, and numbers are made of
them only for operators that have none. Everywhere else the two are elementwise, over bytes in plain order. Types:
uint8, and int8 where nothing but DequantizeLinear reads it; that lies in memory 128 higher, as uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from prunec.backends.cpu.expression import Expression, dequantised, operand, quantised
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.lower import quad_layers
from prunec.backends.cpu.lower.geometry import window_of
from prunec.backends.cpu.lower.held import Border, Grid, Held, as_image, new_held
from prunec.backends.cpu.lower.state import NO_BORDER, State, Unsupported, shape_of
from prunec.graph.shapes import constant, dims

Rule = Callable[[State, ir.Node], Sequence[ir.Node]]
_SHIFTS = {ir.DataType.UINT8: 0, ir.DataType.INT8: 128}
_ROWS = frozenset({"MatMul", "Gemm"})


def grid_of(node: ir.Node) -> Grid:
    """(scale, zero) of a quantiser with one grid for the whole tensor; `zero` as uint8."""
    integers = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    shift = None if integers is None or integers.dtype is None else _SHIFTS.get(integers.dtype)
    if shift is None:
        raise Unsupported(f"{node.op_type} of another type than uint8 and int8")
    given = [constant(value) for value in node.inputs[1:] if value is not None]
    if any(array is None or array.size != 1 for array in given):
        raise Unsupported(f"{node.op_type} with a scale that is computed, or one for each channel")
    scale, *zero = (array.reshape(-1)[0] for array in given if array is not None)
    return float(scale), shift + (int(zero[0]) if zero else 0)


def quantise_element(node: ir.Node, args: Sequence[Expression | None]) -> Expression:
    """QuantizeLinear in a chain of elementwise operators."""
    x = args[0]
    if x is None or x.dtype != "float32":
        raise Unsupported("QuantizeLinear of integers")
    if node.outputs[0].dtype == ir.DataType.INT8 and not is_only_dequantised(node.outputs[0]):
        raise Unsupported("int8 values that are read as such")
    return quantised(x, *grid_of(node))


def dequantise_element(node: ir.Node, args: Sequence[Expression | None]) -> Expression:
    """DequantizeLinear in a chain, of bytes."""
    q = args[0]
    if q is None or q.dtype != "uint8":
        raise Unsupported("DequantizeLinear of another type than uint8")
    return dequantised(q, *grid_of(node))


def quantiser_rule(elementwise: Rule) -> Rule:
    """QuantizeLinear: nothing where the bytes are there, into the layout of int8 kernels, or `elementwise`."""

    def rule(state: State, node: ir.Node) -> Sequence[ir.Node]:
        source, target = node.inputs[0], node.outputs[0]
        held = None if source is None else state.held.get(source.name or "")
        if not can_hold(state, node):
            return elementwise(state, node)
        grid = grid_of(node)
        if held is not None and held.grid == grid:
            state.hold_bytes(target, held)
            return [node]
        if held is not None:
            y = new_held(held.shape, held.axis, grid, wanted_border(target))
            state.pointwise(quantised(held.number(0), *grid), [held.tensor()], y.tensor(), [node])
        else:
            y = _quantised(state, node, grid)
        state.finish_bytes(y)
        state.hold_bytes(target, y)
        return [node]

    return rule


def _quantised(state: State, node: ir.Node, grid: Grid) -> Held:
    shape = shape_of(node.outputs[0])
    y = new_held(shape, channel_axis(node.outputs[0]), grid, wanted_border(node.outputs[0]))
    x = state.tensor(node.inputs[0])
    image = as_image(x, y.axis) or as_image(state.as_plain(x), y.axis)
    assert image is not None
    access = Access(image.buffer.elements, image.offset, image.strides, image.dtype)
    built = quad_layers.quantise(access, y.quads, *grid)
    weights = [state.weights(array).buffer for array in built.weights]
    state.emit(built.kernel, [image.buffer, *weights, y.buffer], [node])
    return y


def dequantiser_rule(elementwise: Rule) -> Rule:
    """DequantizeLinear: nothing is computed. Constants are weights, which their readers ask for."""

    def rule(state: State, node: ir.Node) -> Sequence[ir.Node]:
        source = node.inputs[0]
        if constant(source) is not None and all(v is None or constant(v) is not None for v in node.inputs):
            return [node]
        found = None if source is None else state.bytes.get(source.name or "")
        if found is None:
            return elementwise(state, node)
        state.hold(node.outputs[0], found.on(grid_of(node)))
        return [node]

    return rule


def can_hold(state: State, quantiser: ir.Node) -> bool:
    """Whether its result may lie in the layout of int8 kernels."""
    value = quantiser.outputs[0]
    rank = len(dims(value) or ())
    return state.isa.int8 is not None and 2 <= rank <= 4 and is_only_dequantised(value) and _has_grid(quantiser)


def _has_grid(quantiser: ir.Node) -> bool:
    try:
        grid_of(quantiser)
    except Unsupported:
        return False
    return True


def is_only_dequantised(value: ir.Value) -> bool:
    return not value.is_graph_output() and all(use.node.op_type == "DequantizeLinear" for use in value.uses())


def channel_axis(value: ir.Value) -> int:
    """Of the value's channels: the last axis of rows, the second one of images; of rank 3 there are both."""
    rank = len(shape_of(value))
    reader = _layer_behind(value, 8) if rank == 3 else None
    is_rows = rank == 2 or (rank == 3 and (reader is None or reader.op_type in _ROWS))
    return rank - 1 if is_rows else 1


def _layer_behind(value: ir.Value, depth: int) -> ir.Node | None:
    for use in value.uses() if depth else ():
        if use.node.op_type in _ROWS or use.node.op_type == "Conv":
            return use.node
        for output in use.node.outputs:
            found = _layer_behind(output, depth - 1)
            if found is not None:
                return found
    return None


def wanted_border(value: ir.Value) -> Border:
    """Pixels that convolutions want around a value in 8 bits, whatever quantiser they read it through."""
    border = NO_BORDER
    for use in value.uses():
        node, own = use.node, NO_BORDER
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and use.idx == 0:
            own = wanted_border(node.outputs[0])
        elif node.op_type == "Conv" and use.idx == 0:
            try:
                own = window_of(node, shape_of(node.inputs[1])[2:]).pads
            except Unsupported:
                continue
        border = tuple(map(max, border, own))  # type: ignore[assignment]
    return border


def with_border(state: State, held: Held, border: Border) -> Held:
    """The same bytes with at least this border around them: `held` itself, or a copy."""
    if all(have >= want for have, want in zip(held.quads.border, border, strict=True)):
        return held
    wide: Border = tuple(map(max, held.quads.border, border))  # type: ignore[assignment]
    y = new_held(held.shape, held.axis, held.grid, wide)
    state.pointwise(operand(0, "uint8"), [held.tensor()], y.tensor())
    state.finish_bytes(y)
    return y
