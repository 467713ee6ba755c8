"""Float values that are there in 8 bits: which bytes, in which layout, on which grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prunec.backends.cpu.expression import Expression, dequantised, operand
from prunec.backends.cpu.lower.program import Buffer, Tensor
from prunec.backends.cpu.quads import QUAD, Quads

Border = tuple[int, int, int, int]
Grid = tuple[float, int]


@dataclass(frozen=True, eq=False)
class Held:
    """The bytes q of `buffer` stand for (q − zero) · scale. `shape` is the value's, `axis` that of its channels."""

    buffer: Buffer
    quads: Quads
    shape: tuple[int, ...]
    axis: int
    scale: float
    zero: int

    @property
    def grid(self) -> Grid:
        return self.scale, self.zero

    def number(self, index: int) -> Expression:
        """What input `index` of a kernel, one of the bytes, stands for."""
        return dequantised(operand(index, "uint8"), self.scale, self.zero)

    def tensor(self) -> Tensor:
        """The bytes as [n, quads, h, w, 4]."""
        q = self.quads
        shape = (q.batch, q.quads, q.height, q.width, QUAD)
        return Tensor(shape, "uint8", self.buffer, q.first, (*q.strides, 1))

    def on(self, grid: Grid) -> Held:
        """The same bytes, for a quantiser of this grid."""
        return replace(self, scale=grid[0], zero=grid[1])


def layout(shape: Sequence[int], axis: int, border: Border = (0, 0, 0, 0)) -> Quads:
    """[n, c, h, w] and [n, c, l] as images, [.., k] with channels at the end as an image of one line."""
    if axis == len(shape) - 1:
        return Quads(1, shape[-1], 1, math.prod(shape[:-1]))
    n, c, *size = shape
    return Quads(n, c, 1, size[0], border) if len(size) == 1 else Quads(n, c, size[0], size[1], border)


def new_held(shape: Sequence[int], axis: int, grid: Grid, border: Border = (0, 0, 0, 0)) -> Held:
    """Room for a value."""
    quads = layout(shape, axis, border)
    return Held(Buffer("arena", "uint8", quads.size), quads, tuple(shape), axis, *grid)


def as_image(x: Tensor, axis: int) -> Tensor | None:
    """A tensor of such a shape seen as [n, c, h, w], None where rows are not evenly spaced."""
    if len(x.shape) == 4 and axis == 1:
        return x
    if axis != len(x.shape) - 1:
        n, c, length = x.shape
        return x.view((n, c, 1, length), (x.strides[0], x.strides[1], 0, x.strides[2]))
    rows, step = 1, 0
    for count, stride in zip(reversed(x.shape[:-1]), reversed(x.strides[:-1]), strict=True):
        if count == 1:
            continue
        if rows == 1:
            step = stride
        elif stride != rows * step:
            return None
        rows *= count
    return x.view((1, x.shape[-1], 1, rows), (0, x.strides[-1], 0, step))
