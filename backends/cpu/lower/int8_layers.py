"""Convolutions and products of what is there in 8 bits, by int8 weights, with what their epilogue takes in.

A layer whose kernel is missing, or whose weights are not as the kernels want them, is computed in float32 from what the
bytes stand for; `Program.in_float` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.lower import quad_layers
from prunec.backends.cpu.lower.geometry import window_of
from prunec.backends.cpu.lower.held import Border, Held, layout, new_held
from prunec.backends.cpu.lower.int8_stem import folded_input, folded_weight, folding
from prunec.backends.cpu.lower.int8_tail import Tail, tail_of
from prunec.backends.cpu.lower.program import Buffer, Tensor, plain_strides
from prunec.backends.cpu.lower.quad_layers import Steps, Taps
from prunec.backends.cpu.lower.quantisers import wanted_border, with_border
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.weights import weights_of
from prunec.backends.cpu.quad_weights import Weights
from prunec.backends.cpu.quads import FloatRows
from prunec.diagnostics import PrunecError
from prunec.graph.shapes import constant
from prunec.graph.weights import quantised_axis

Rule = Callable[[State, ir.Node], Sequence[ir.Node]]
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Layer:
    """`matrix` int8 [M, C, kh, kw] ([C, 1, kh, kw] where every channel is by itself), `steps` float64 [M] its scales.

    `bias` float64 [M], in numbers. `pads`: border that it reads.
    """

    matrix: np.ndarray
    steps: np.ndarray
    bias: np.ndarray
    taps: Taps
    pads: Border
    is_depthwise: bool


def in_bytes_if_held(rule: Rule) -> Rule:
    """`rule` computes in float32 what has no int8 kernel."""

    def own(state: State, node: ir.Node) -> Sequence[ir.Node]:
        source = node.inputs[0]
        held = None if source is None else state.held.get(source.name or "")
        if held is None:
            return rule(state, node)
        try:
            return _lower(state, node, held, _layer(node, held))
        except (Unsupported, PrunecError) as reason:
            why = reason.diagnostic.message if isinstance(reason, PrunecError) else str(reason)
            found = rule(state, node)
            state.program.in_float[node.name or node.op_type] = why
            return found

    return own


def _lower(state: State, node: ir.Node, held: Held, layer: Layer) -> Sequence[ir.Node]:
    channels = len(layer.matrix)
    tail = tail_of(state, node, channels)
    shape = shape_of(node.outputs[0])
    axis = 1 if node.op_type == "Conv" else len(shape) - 1
    bias = layer.bias if tail.added is None else layer.bias + tail.added
    if layer.is_depthwise and tail.grid is None:
        raise Unsupported("a depthwise convolution whose result is not quantised")
    _weights(layer, bias, held, tail).corrected_bias()  # whether sums fit, before anything is emitted
    x, layer = _read(state, held, layer)
    weights = _weights(layer, bias, held, tail)
    if tail.grid is None:
        y = _float_result(shape, axis)
        rows = layout(shape, axis)
        target = FloatRows(rows.batch, rows.height * rows.width, channels)
        built = quad_layers.quad_product(state.isa, weights, _steps(tail), layer.taps, x.quads, target)
        state.emit(built.kernel, _buffers(state, x, built.weights, None, y.buffer), [node, *tail.nodes])
        state.define(tail.output, y)
        return [node, *tail.nodes]
    found = new_held(shape, axis, tail.grid, wanted_border(tail.output))
    residual = None if tail.residual is None else with_border(state, tail.residual, found.quads.border)
    product = quad_layers.quad_depthwise if layer.is_depthwise else quad_layers.quad_product
    beside = None if residual is None else residual.quads
    built = product(state.isa, weights, _steps(tail), layer.taps, x.quads, found.quads, residual=beside)
    state.emit(built.kernel, _buffers(state, x, built.weights, residual, found.buffer), [node, *tail.nodes])
    state.finish_bytes(found)
    state.hold_bytes(tail.output, found)
    return [node, *tail.nodes]


def _read(state: State, held: Held, layer: Layer) -> tuple[Held, Layer]:
    """The bytes as the layer reads them: within a border, or folded, and then it is another layer of the same sums."""
    taps = layer.taps
    axis = None if layer.is_depthwise else folding(held, taps.strides, taps.dilations, layer.pads)
    if axis is None:
        return with_border(state, held, layer.pads), layer
    step = taps.strides[axis]
    strides = (1, taps.strides[1]) if axis == 0 else (taps.strides[0], 1)
    matrix = folded_weight(layer.matrix, axis, step)
    return folded_input(state, held, axis, step), replace(layer, matrix=matrix, taps=replace(taps, strides=strides))


def _buffers(
    state: State, x: Held, weights: Sequence[np.ndarray], residual: Held | None, y: Buffer
) -> list[Buffer]:  # fmt: skip
    added = [] if residual is None else [residual.buffer]
    return [x.buffer, *(state.weights(array).buffer for array in weights), *added, y]


def _float_result(shape: tuple[int, ...], axis: int) -> Tensor:
    """float32 with the channels last, whatever axis they are."""
    buffer = Buffer("arena", "float32", math.prod(shape))
    order = [a for a in range(len(shape)) if a != axis] + [axis]
    dense = plain_strides([shape[a] for a in order])
    return Tensor(shape, "float32", buffer, 0, tuple(dense[order.index(a)] for a in range(len(shape))))


def _weights(layer: Layer, bias: np.ndarray, held: Held, tail: Tail) -> Weights:
    """Sums are in steps of x · w; biases as well.

    Scales are rounded where ONNX Runtime's fused operators round them, or sums near the middle of two steps end on
    different sides and later layers spread that.
    """
    own = (held.scale * layer.steps).astype(np.float32)
    whole = np.rint(bias / own.astype(np.float64))
    if not (np.abs(whole) <= _LARGEST).all():
        raise Unsupported("a bias that does not fit into 32 bits")
    first = tail.inner.grid if tail.inner is not None else tail.grid
    scale = own if first is None else own / np.float32(first[0])
    return Weights(layer.matrix, whole.astype(np.int32), scale, held.zero)


def _steps(tail: Tail) -> Steps:
    if tail.grid is None:
        return Steps(low=tail.low, high=tail.high)
    (scale, zero), residual = tail.grid, tail.residual
    low, high = (_on_grid(limit, scale, zero) for limit in (tail.low, tail.high))
    steps = Steps(zero=zero, low=low, high=high)
    if residual is None:
        return steps
    over = np.float32(scale)
    steps = replace(steps, residual_scale=float(np.float32(residual.scale) / over), residual_zero=residual.zero)
    if tail.inner is None:
        return steps
    first, first_zero = tail.inner.grid
    low, high = (_on_grid(limit, first, first_zero) for limit in (tail.inner.low, tail.inner.high))
    return replace(
        steps, addition="residual_first" if tail.is_residual_first else "sum_first",
        first_scale=float(np.float32(first) / over), first_zero=first_zero, first_low=low, first_high=high,
    )  # fmt: skip


def _on_grid(limit: float, scale: float, zero: int) -> int:
    if math.isinf(limit):
        return 255 if limit > 0 else 0
    return int(np.clip(np.rint(limit / scale) + zero, 0, 255))


def _layer(node: ir.Node, held: Held) -> Layer:
    """What the node computes. Raises Unsupported, with the reason, where int8 kernels cannot."""
    matrix, steps = _integers(node)
    if node.op_type == "Conv":
        if held.axis != 1 or len(held.shape) not in (3, 4):
            raise Unsupported("a convolution over values that lie in rows")
        matrix = matrix[:, :, None, :] if matrix.ndim == 3 else matrix
        window = window_of(node, matrix.shape[2:])
        groups, channels = node.attributes.get_int("group", 1) or 1, held.shape[1]
        is_depthwise = groups == channels == len(matrix) > 1
        if groups > 1 and not is_depthwise:
            matrix = _ungrouped(matrix, groups)
        taps = Taps(window.strides, window.dilations, window.pads)
        return Layer(matrix, steps, _bias(node, len(matrix)), taps, window.pads, is_depthwise)
    if held.axis != len(held.shape) - 1 or (node.attributes.get_int("transA", 0) or 0) != 0:
        raise Unsupported("a product of what does not lie in rows")
    if any(node.attributes.get_float(name, 1.0) != 1 for name in ("alpha", "beta")):
        raise Unsupported("a product that is scaled")
    return Layer(matrix[:, :, None, None], steps, _bias(node, len(matrix)), Taps(), (0, 0, 0, 0), is_depthwise=False)


def _integers(node: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """int8 [M, ...] and float64 [M] of the weight."""
    weight = node.inputs[1]
    made_by = None if weight is None else weight.producer()
    if made_by is None or made_by.op_type != "DequantizeLinear":
        raise Unsupported("weights that are not quantised")
    array, scale, *zero = (constant(value) for value in made_by.inputs)
    if array is None or scale is None or array.dtype not in (np.int8, np.uint8) or array.ndim < 2:
        raise Unsupported("weights that are no int8 constants")
    is_first = node.op_type == "Conv" or (node.attributes.get_int("transB", 0) or 0) != 0
    axis = 0 if is_first else array.ndim - 1
    if scale.size > 1 and (scale.ndim != 1 or quantised_axis(made_by) != axis or len(scale) != array.shape[axis]):
        raise Unsupported("weights with scales along another axis than the outputs")
    if node.op_type != "Conv" and array.ndim != 2:
        raise Unsupported("a batch of weights")
    moved = np.moveaxis(array, axis, 0).astype(np.int16)
    if zero and zero[0] is not None:
        moved = moved - zero[0].astype(np.int16).reshape(-1, *[1] * (moved.ndim - 1))
    if moved.min(initial=0) < -128 or moved.max(initial=0) > 127:
        raise Unsupported("weights that do not fit into int8 around their zero point")
    return moved.astype(np.int8), np.broadcast_to(scale.astype(np.float64).reshape(-1), (len(moved),))


def _bias(node: ir.Node, count: int) -> np.ndarray:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return np.zeros(count)
    array = weights_of(value, np.float64)  # integers of more than 24 bits are still those behind the scale
    if array is None or array.size not in (1, count):
        raise Unsupported("a bias that is computed, or has more than one row")
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (count,))


def _ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """[M, C/groups, kh, kw] as [M, C, kh, kw], with zeros, which are not stored, where an output reads no input."""
    outputs, own, *kernel = weight.shape
    matrix = np.zeros((outputs, own * groups, *kernel), np.int8)
    per_group = outputs // groups
    for group in range(groups):
        mine = slice(group * per_group, (group + 1) * per_group)
        matrix[mine, group * own : (group + 1) * own] = weight[mine]
    return matrix
