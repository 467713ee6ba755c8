"""ConvTranspose as ordinary products: one for each phase of the strides, over the taps that meet its pixels.

Output row o = i·stride − pad + k·dilation. The rows with o ≡ phase (mod stride) take the taps k for which
(phase + pad − k·dilation) is a multiple of the stride, from the input rows j + that multiple: a convolution with stride
1 whose result lies `stride` rows apart. No zeros are inserted and none are multiplied.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.lower.fuse import grow
from prunec.backends.cpu.lower.products import Reads, bordered, product
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import as_image, expanded, sliced, transposed
from prunec.graph.shapes import constant


class _Axis(NamedTuple):
    """One axis: lengths before and after, and how the kernel goes over it."""

    before: int
    after: int
    kernel: int
    stride: int
    dilation: int
    pad: int

    def taps(self, phase: int) -> list[tuple[int, int]]:
        """(position in the kernel, rows further in the input) of one phase."""
        found = ((k, phase + self.pad - k * self.dilation) for k in range(self.kernel))
        return [(k, ahead // self.stride) for k, ahead in found if ahead % self.stride == 0]

    def phases(self) -> range:
        return range(min(self.stride, self.after))

    def count(self, phase: int) -> int:
        return -(-(self.after - phase) // self.stride)

    def border(self) -> tuple[int, int]:
        """Zeros that the phases together read before and behind the input."""
        reach = [(ahead, self.count(phase)) for phase in self.phases() for _, ahead in self.taps(phase)]
        before = max((-ahead for ahead, _ in reach), default=0)
        behind = max((ahead + count - self.before for ahead, count in reach), default=0)
        return max(0, before), max(0, behind)


def conv_transpose(state: State, node: ir.Node) -> Sequence[ir.Node]:
    """ConvTranspose with constant weights over one or two axes. Returns the nodes that went into it."""
    weight = constant(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = None if bias_value is None else constant(bias_value)
    if weight is None or weight.dtype != np.float32 or (bias_value is not None and bias is None):
        raise Unsupported("a transposed convolution whose weights are computed, or no float32")
    x = state.tensor(node.inputs[0])
    if len(x.shape) not in (3, 4):
        raise Unsupported(f"a transposed convolution over {len(x.shape) - 2} axes")
    cluster = grow(node.outputs[0], state.is_known)
    out_shape = shape_of(node.outputs[0])
    operands = [expanded(state.tensor(value), out_shape) for value in cluster.operands]
    axes = _axes(node, x.shape[2:], out_shape[2:], weight.shape[2:])
    if len(x.shape) == 3:  # one axis is an image of one line
        weight, x, axes = weight[:, :, None, :], as_image(x), [_Axis(1, 1, 1, 1, 1, 0), *axes]
        operands = [as_image(t) for t in operands]
    down, right = axes
    (top, bottom), (left, far) = down.border(), right.border()
    x = bordered(state, x, (top, left, bottom, far))
    n, channels = out_shape[:2]
    y = state.image((n, channels, 1, out_shape[2])) if len(out_shape) == 3 else state.result(cluster.output)
    groups = node.attributes.get_int("group", 1) or 1
    nodes = [node, *cluster.nodes]
    for py, px in itertools.product(down.phases(), right.phases()):

        def part(t: Tensor, py: int = py, px: int = px) -> Tensor:
            rows = sliced(t, 2, py, down.count(py), down.stride)
            return transposed(sliced(rows, 3, px, right.count(px), right.stride), (0, 2, 3, 1))

        taps = list(itertools.product(down.taps(py), right.taps(px)))
        matrix = _matrix(weight, groups, [(ky, kx) for (ky, _), (kx, _) in taps])
        steps = [dy * x.strides[2] + dx * x.strides[3] for (_, dy), (_, dx) in taps] or [0]
        offsets = np.add.outer(steps, np.arange(x.shape[1]) * x.strides[1]).reshape(-1)
        read = Access(x.buffer.elements, x.offset, (x.strides[0], x.strides[2], x.strides[3]))
        reads = Reads(None, offsets, read, x)
        product(state, nodes, matrix, bias, reads, part(y), [part(t) for t in operands], cluster.value)
    state.define(cluster.output, y if len(out_shape) == 4 else y.view(out_shape, (*y.strides[:2], y.strides[3])))
    return nodes


def _axes(node: ir.Node, before: Sequence[int], after: Sequence[int], kernel: Sequence[int]) -> list[_Axis]:
    """The padding at the start follows from the length of the result, whichever way the model says it."""
    count = len(before)
    strides = list(node.attributes.get_ints("strides") or [1] * count)
    dilations = list(node.attributes.get_ints("dilations") or [1] * count)
    extra = list(node.attributes.get_ints("output_padding") or [0] * count)
    pads = list(node.attributes.get_ints("pads") or [0] * 2 * count)
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    is_free = auto in ("SAME_UPPER", "SAME_LOWER") or bool(node.attributes.get_ints("output_shape"))
    axes = []
    for i in range(count):
        pad = pads[i]
        if is_free:
            total = max(0, strides[i] * (before[i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 - after[i])
            pad = total // 2 if auto == "SAME_UPPER" else total - total // 2
        axes.append(_Axis(before[i], after[i], kernel[i], strides[i], dilations[i], pad))
    return axes


def _matrix(weight: np.ndarray, groups: int, taps: Sequence[tuple[int, int]]) -> np.ndarray:
    """[C, M/groups, kh, kw] at some taps as [M, taps · C], zero where an output does not read an input."""
    channels, per_group = weight.shape[:2]
    own = channels // groups
    matrix = np.zeros((per_group * groups, max(1, len(taps)), channels), np.float32)
    for place, (ky, kx) in enumerate(taps):
        for group in range(groups):
            mine = slice(group * own, (group + 1) * own)
            matrix[group * per_group : (group + 1) * per_group, place, mine] = weight[mine, :, ky, kx].T
    return matrix.reshape(len(matrix), -1)
