"""Convolutions and products with constant weights, with their epilogues: one of `candidates`, or depthwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.depthwise import Depthwise
from prunec.backends.cpu.kernels.panel import Window
from prunec.backends.cpu.lower.candidates import Product, build
from prunec.backends.cpu.lower.fuse import Cluster, grow
from prunec.backends.cpu.lower.geometry import Window as Taps
from prunec.backends.cpu.lower.geometry import window_of
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.state import NO_BORDER, Border, State, Unsupported, shape_of
from prunec.backends.cpu.lower.tiles import choose_lines, choose_pixels
from prunec.backends.cpu.lower.views import as_image, expanded, reshaped
from prunec.backends.cpu.lower.weights import weights_of
from prunec.backends.cpu.pack import convolution_matrix, convolution_offsets

_FEW_CHANNELS = 4
"""Images with so few channels keep them first: copying lines is cheaper than scattering pixels."""


def lower_conv(state: State, node: ir.Node) -> Sequence[ir.Node]:
    """Conv with constant weights over one or two axes. Returns the nodes that went into it."""
    weight, bias = weights_of(node.inputs[1]), _bias(node, 2)
    if weight is None or weight.dtype != np.float32:
        raise Unsupported("a convolution whose weights are computed, or no float32")
    shape = shape_of(node.inputs[0])
    if len(shape) not in (3, 4):
        raise Unsupported(f"a convolution over {len(shape) - 2} axes")
    cluster = grow(node.outputs[0], state.is_known)
    out_shape = shape_of(node.outputs[0])
    x = state.tensor(node.inputs[0])
    if len(shape) == 3:  # one axis is an image of one line
        weight, x = weight[:, :, None, :], as_image(x)
    window = window_of(node, weight.shape[2:])
    x = bordered(state, x, window.pads)
    if len(shape) == 3:
        n, c, length = out_shape
        y4 = state.image((n, c, 1, length))
        y = y4.view(out_shape, (y4.strides[0], y4.strides[1], y4.strides[3]))
    else:
        y = y4 = state.result(cluster.output)
    groups = node.attributes.get_int("group", 1) or 1
    if groups == x.shape[1] == len(weight) and weight.shape[1] == 1:
        _depthwise(state, node, x, y4, weight, bias, window, cluster)
    else:
        _dense(state, node, x, y4, weight, bias, window, groups, cluster)
    assert shape_of(cluster.output) == out_shape
    state.define(cluster.output, y)
    return [node, *cluster.nodes]


def _dense(
    state: State, node: ir.Node, x: Tensor, y: Tensor, weight: np.ndarray, bias: np.ndarray | None, window: Taps,
    groups: int, cluster: Cluster,
) -> None:  # fmt: skip
    matrix = convolution_matrix(weight, groups)
    taps = (window.dilations[0] * x.strides[2], window.dilations[1] * x.strides[3], x.strides[1])
    steps = (x.strides[2], x.strides[3], x.strides[1])
    kernel = (weight.shape[2], weight.shape[3])
    offsets = convolution_offsets(kernel, x.shape[1], taps)
    corner = x.offset - window.pads[0] * x.strides[2] - window.pads[1] * x.strides[3]
    source = (x.strides[0], window.strides[0] * x.strides[2], window.strides[1] * x.strides[3])
    read = Access(x.buffer.elements, corner, source)
    operands = [_channels_last(expanded(_rank4(state.tensor(v), y), y.shape)) for v in cluster.operands]
    reads = Reads(Window(kernel, window.strides, window.dilations, x.shape[1], steps), offsets, read, x)
    product(state, [node, *cluster.nodes], matrix, bias, reads, _channels_last(y), operands, cluster.value)


@dataclass(frozen=True)
class Reads:
    """How a product reads X: the columns of its matrix lie `offsets` from `first` [grid].

    `window`: the same as positions of a kernel, in this order; None where they are none.
    """

    window: Window | None
    offsets: np.ndarray
    first: Access
    x: Tensor


def product(
    state: State, nodes: Sequence[ir.Node], matrix: np.ndarray, bias: np.ndarray | None, reads: Reads, y: Tensor,
    operands: Sequence[Tensor], epilogue: Expression,
) -> None:  # fmt: skip
    """Emit Y[grid, m] = epilogue(X[grid + offsets] · matrixᵀ + bias); `y` and `operands` are [grid (3 axes), m].

    Axes of the grid that run on in every buffer are joined, where a pixel of Y reads no more than a pixel of X.
    """
    assert y.strides[3] == 1 or y.shape[3] == 1
    operands = [_channel_dense(state, tensor) for tensor in operands]
    *grid, channels = y.shape
    strides = [reads.first.strides, *(t.strides[:3] for t in (*operands, y))]
    axes = [(n, tuple(own[axis] for own in strides)) for axis, n in enumerate(grid)]
    window = reads.window
    if window is None or window.kernel == (1, 1):
        axes = _joined([axis for axis in axes if axis[0] != 1])
        axes = [(1, (0,) * len(strides))] * (3 - len(axes)) + axes
    if window is not None and window.kernel == (1, 1):
        window = Window((1, 1), (1, 1), (1, 1), window.channels, (axes[1][1][0], axes[2][1][0], window.steps[2]))

    def access(index: int, tensor: Tensor | Access, tail: tuple[int, ...]) -> Access:
        elements = tensor.size if isinstance(tensor, Access) else tensor.buffer.elements
        return Access(elements, tensor.offset, (*(own[index] for _, own in axes), *tail))

    wanted = Product(
        isa=state.isa, grid=(axes[0][0], axes[1][0], axes[2][0]), matrix=matrix, offsets=reads.offsets, window=window,
        x=access(0, reads.first, ()), y=access(1 + len(operands), y, ()), epilogue=epilogue,
        operands=tuple(
            access(1 + i, t, (t.strides[3] if t.shape[3] != 1 else 0,)) for i, t in enumerate(operands)
        ),
        input_bytes=reads.x.buffer.bytes,
    )  # fmt: skip
    built = build(wanted, state.choose(wanted))
    padded = np.zeros(built.kernel.row_blocks * built.kernel.rows, np.float32)
    padded[:channels] = 0 if bias is None else bias
    weights = [state.weights(a).buffer for a in (*built.weights, padded)]
    state.emit(built.kernel, [reads.x.buffer, *weights, *(t.buffer for t in operands), y.buffer], nodes)


Axis = tuple[int, tuple[int, ...]]


def _joined(axes: Sequence[Axis]) -> list[Axis]:
    """Axes (extent, strides) of which some run on in the next one."""
    joined: list[Axis] = []
    for extent, own in axes:
        if joined and all(a == b * extent for a, b in zip(joined[-1][1], own, strict=True)):
            joined[-1] = (joined[-1][0] * extent, own)
        else:
            joined.append((extent, own))
    return joined


def _depthwise(
    state: State, node: ir.Node, x: Tensor, y: Tensor, weight: np.ndarray, bias: np.ndarray | None, window: Taps,
    cluster: Cluster,
) -> None:  # fmt: skip
    if x.strides[1] != 1:
        x = state.copy(x, state.image(x.shape, window.pads))
    n, c, h, w = y.shape
    down, right = x.strides[2], x.strides[3]
    corner = x.offset - window.pads[0] * down - window.pads[1] * right
    reads = (x.strides[0], window.strides[0] * down, window.strides[1] * right)
    taps = (window.dilations[0] * down, window.dilations[1] * right)
    operands = [
        _channel_dense(state, _channels_last(expanded(_rank4(state.tensor(v), y), y.shape))) for v in cluster.operands
    ]
    out = _channels_last(y)
    kernel = Depthwise(
        grid=(n, h, w), kernel=(weight.shape[2], weight.shape[3]), channels=c,
        x=Access(x.buffer.elements, corner, (*reads, *taps)),
        y=Access(y.buffer.elements, y.offset, out.strides[:3]), epilogue=cluster.value,
        operands=tuple(Access(t.buffer.elements, t.offset, t.strides) for t in operands),
        tile=choose_pixels(w, state.isa), lines=choose_lines(n, h, reads[1] * 4),
    )  # fmt: skip
    own = np.zeros(c, np.float32) if bias is None else bias
    weights = [state.weights(a).buffer for a in (weight.transpose(2, 3, 1, 0), own)]
    state.emit(kernel, [x.buffer, *weights, *(t.buffer for t in operands), y.buffer], [node, *cluster.nodes])


def lower_matmul(state: State, node: ir.Node, matrix: np.ndarray, bias: np.ndarray | None) -> Sequence[ir.Node]:
    """Y [..., m] = X [..., k] · matrixᵀ [m, k] + bias."""
    cluster = grow(node.outputs[0], state.is_known)
    x, y = state.tensor(node.inputs[0]), state.plain(shape_of(cluster.output), "float32")
    rows_in, rows_out = _as_rows(state, x), _as_rows(state, y)
    operands = [_as_rows(state, expanded(state.tensor(v), y.shape)) for v in cluster.operands]
    offsets = np.arange(matrix.shape[1]) * rows_in.strides[3]
    read = Access(rows_in.buffer.elements, rows_in.offset, rows_in.strides[:3])
    window = Window((1, 1), (1, 1), (1, 1), matrix.shape[1], (0, 0, rows_in.strides[3]))
    reads = Reads(window, offsets, read, rows_in)
    product(state, [node, *cluster.nodes], matrix, bias, reads, rows_out, operands, cluster.value)
    state.define(cluster.output, y)
    return [node, *cluster.nodes]


def lower_gemm(state: State, node: ir.Node) -> Sequence[ir.Node]:
    """Gemm with a constant B and a constant C of one number per output, if any."""
    weight, bias = weights_of(node.inputs[1]), _bias(node, 2)
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if weight is None or (has_bias and bias is None) or node.attributes.get_int("transA", 0) != 0:
        raise Unsupported("a Gemm whose B or C is computed, or whose A is transposed")
    matrix = weight if node.attributes.get_int("transB", 0) else weight.T
    alpha, beta = node.attributes.get_float("alpha", 1.0) or 0.0, node.attributes.get_float("beta", 1.0) or 0.0
    if bias is not None:
        if bias.size not in (1, len(matrix)):
            raise Unsupported("a Gemm whose C has more than one row")
        bias = np.broadcast_to(bias.reshape(-1), (len(matrix),)) * np.float32(beta)
    return lower_matmul(state, node, matrix * np.float32(alpha) if alpha != 1 else matrix, bias)


def bordered(state: State, x: Tensor, pads: Border) -> Tensor:
    """`x` where it has zeros enough around it, else a copy that has."""
    is_wide = all(have >= want for have, want in zip(x.border, pads, strict=True))
    if is_wide and (x.strides[1] == 1 or pads == NO_BORDER):
        return x
    is_first = x.shape[1] <= _FEW_CHANNELS and x.strides[1] != 1
    return state.copy(x, state.image(x.shape, pads, channels_last=not is_first))


def _bias(node: ir.Node, index: int) -> np.ndarray | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    return None if value is None else weights_of(value)


def _rank4(operand: Tensor, y: Tensor) -> Tensor:
    """An operand of a [n, c, l] epilogue beside a y that is seen as [n, c, 1, l]."""
    if len(operand.shape) == 3 and y.shape[2] == 1:
        return as_image(operand)
    return operand


def _channels_last(x: Tensor) -> Tensor:
    """[n, c, h, w] seen as [n, h, w, c]."""
    order = (0, 2, 3, 1)
    return x.view([x.shape[a] for a in order], [x.strides[a] for a in order])


def _channel_dense(state: State, operand: Tensor) -> Tensor:
    """An operand [grid, m] whose channels the kernel can load: side by side, or one for all."""
    if operand.shape[3] == 1 or operand.strides[3] in (0, 1):
        return operand
    n, h, w, c = operand.shape
    held = state.plain((n, h, w, c), operand.dtype)
    return state.copy(operand, held)


def _as_rows(state: State, x: Tensor) -> Tensor:
    """[..., k] with exactly three axes before the last one: ones added, or leading ones joined."""
    *outer, k = x.shape
    if len(outer) <= 3:
        missing = 3 - len(outer)
        return x.view((*[1] * missing, *outer, k), (*[0] * missing, *x.strides))
    shape = (math.prod(outer[:-2]), *outer[-2:], k)
    joined = reshaped(x, shape)
    if joined is None:
        joined = reshaped(state.as_plain(x), shape)
    assert joined is not None
    return joined
