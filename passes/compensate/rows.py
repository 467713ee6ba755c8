"""Patches and targets as rows: y = W z + b for a sample of output positions.

For output position o and kernel position k of one spatial axis, a Conv reads input o·stride + k·dilation − pad, a
ConvTranspose reads i where i·stride + k·dilation − pad = o (none if that has no integer solution). Positions outside
the input read a row of zeros. Products have one kernel position, and every row is its own patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from prunec.graph.rules.base import attribute
from prunec.passes.compensate.layers import ConvLayer, Layer, StackLayer

Index = npt.NDArray[np.int64]
FEW = 4
"""Gathering one position from the tensor as it is costs what copying this many to rows does."""


def channel_rows(array: np.ndarray, axis: int) -> np.ndarray:
    """[positions, channels] of a tensor, positions in row-major order of the other axes."""
    moved: np.ndarray = np.moveaxis(array, axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def rows_at(array: np.ndarray, axis: int, positions: Index) -> np.ndarray:
    """`channel_rows(array, axis)[positions]` without the others."""
    moved = np.moveaxis(array, axis, -1)
    found: np.ndarray = moved[np.unravel_index(positions, moved.shape[:-1])]
    return found


def position_count(shape: Sequence[int], axis: int) -> int:
    return math.prod(shape) // shape[axis] if shape[axis] else 0


class Patches:
    """Patches of one batch: x is the layer's input, `out_shape` the shape of its output."""

    def __init__(self, layer: Layer, x: np.ndarray, out_shape: Sequence[int]) -> None:
        self.is_conv = isinstance(layer, ConvLayer)
        self.groups = layer.groups if isinstance(layer, ConvLayer) else 1
        self.stack = layer.input_rows(x) if isinstance(layer, StackLayer) else None
        self.x, self.axis = x, layer.data_axis
        self.rows: np.ndarray | None = None
        self.by_channel = layer.node.op_type == "BatchNormalization"
        if not isinstance(layer, ConvLayer):
            return
        self.count = position_count(x.shape, layer.data_axis)
        self.sizes = x.shape[2:]
        self.out_sizes = tuple(out_shape[2:])
        self.axes = [axis_table(layer, a, self.sizes[a], self.out_sizes[a]) for a in range(len(self.sizes))]
        self.is_pointwise = self.sizes == self.out_sizes and all(
            table.shape[1] == 1 and bool((table[:, 0] == np.arange(len(table))).all()) for table in self.axes
        )

    def take(self, positions: Index) -> np.ndarray:
        """z [g, R, K·C/g] of the given output positions (flat, over batch and space)."""
        if self.stack is not None:
            stacked: np.ndarray = self.stack[:, positions]
            return stacked
        if self.by_channel:
            columns: np.ndarray = rows_at(self.x, self.axis, positions).T
            return columns[:, :, None]
        if not self.is_conv or (self.is_pointwise and self.groups == 1):
            return rows_at(self.x, self.axis, positions)[None]
        found = self._gathered(self._inputs(positions))
        count, kernel, channels = found.shape
        grouped: np.ndarray = found.reshape(count, kernel, self.groups, channels // self.groups).transpose(2, 0, 1, 3)
        return grouped.reshape(self.groups, count, -1)

    def _gathered(self, inputs: Index) -> np.ndarray:
        """[R, K, C]; where much of x is read, from rows in which channels lie together."""
        if inputs.size * FEW < self.count:
            sample, place = np.divmod(inputs, max(math.prod(self.sizes), 1))
            outside = inputs == self.count
            found: np.ndarray = self.x.reshape(*self.x.shape[:2], -1)[np.where(outside, 0, sample), :, place]
            found[outside] = 0
            return found
        if self.rows is None:
            moved = np.moveaxis(self.x, self.axis, -1)
            self.rows = np.zeros((self.count + 1, moved.shape[-1]), self.x.dtype)
            self.rows[:-1].reshape(moved.shape)[...] = moved
        taken: np.ndarray = self.rows[inputs]
        return taken

    def _inputs(self, positions: Index) -> Index:
        """[R, K] rows that each output position reads; a last one, behind all others, stands for zeros."""
        rank = len(self.sizes)
        places: list[Index] = []
        rest = positions
        for size in reversed(self.out_sizes):
            rest, place = np.divmod(rest, size)
            places.insert(0, place)
        flat = rest.reshape(-1, *([1] * rank))
        inside = np.ones((1,) * (rank + 1), bool)
        for a, place in enumerate(places):
            own = self.axes[a][place]
            own = own.reshape(len(own), *([1] * a), -1, *([1] * (rank - 1 - a)))
            flat = flat * self.sizes[a] + np.maximum(own, 0)
            inside = inside & (own >= 0)
        flat = np.where(inside, flat, self.count)
        return flat.reshape(len(positions), -1)


def axis_table(layer: ConvLayer, axis: int, size: int, out_size: int) -> Index:
    """[out_size, k]: the input position that output o and kernel position k read, −1 for none."""
    node = layer.node
    kernel = kernel_lengths(node)[axis]
    stride, dilation = (_ints(node, name, axis, 1) for name in ("strides", "dilations"))
    reach = (kernel - 1) * dilation
    if layer.is_transposed:
        total = stride * (size - 1) + _ints(node, "output_padding", axis, 0) + reach + 1 - out_size
    else:
        total = (out_size - 1) * stride + reach + 1 - size
    return _table(kernel, stride, dilation, _pad(node, axis, total), size, out_size, layer.is_transposed)


@lru_cache(maxsize=64)
def _table(
    kernel: int, stride: int, dilation: int, padding: int, size: int, out_size: int, is_transposed: bool
) -> Index:
    """Every batch asks for the same few."""
    reach, out = np.arange(kernel) * dilation, np.arange(out_size)
    if is_transposed:
        shifted = out[:, None] + padding - reach
        table = np.where(shifted % stride == 0, shifted // stride, -1)
    else:
        table = out[:, None] * stride + reach - padding
    return np.where((table >= 0) & (table < size), table, -1)


def kernel_lengths(node: ir.Node) -> list[int]:
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    return [int(d) for d in list(weight.shape)[2:]]  # type: ignore[arg-type]


def _pad(node: ir.Node, axis: int, total: int) -> int:
    """Padding before the first element; `total` is what automatic padding has to spread."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return 0
    if not mode.startswith("SAME") and attribute(node, "output_shape") is None:
        return _ints(node, "pads", axis, 0)
    total = max(total, 0)
    return total // 2 if mode == "SAME_UPPER" else total - total // 2


def _ints(node: ir.Node, name: str, axis: int, default: int) -> int:
    values = attribute(node, name)
    return default if values is None else int(values[axis])


def sample(random: np.random.Generator, available: int, wanted: int) -> Index:
    """Sorted positions, all of them where no more are wanted than there are."""
    if wanted >= available:
        return np.arange(available)
    return np.sort(random.choice(available, wanted, replace=False))
