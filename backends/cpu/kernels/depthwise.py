"""Depthwise convolution, channels last: every channel has its own k×k filter, vectors run along the channels.

    Y[y, x, c] = epilogue(bias[c] + Σ_(r,q) X[y·s + r·d, x·s + q·d, c] · W[r, q, c])

A vector of channels goes down some lines at a time, so that the lines of X that its windows share stay in the first
cache; the sums of a few pixels of a line stay in registers. X has a border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, Sums, ceil_div, load, pieces, span, store


@dataclass(frozen=True)
class Depthwise(Kernel):
    """`grid`: batch, height, width of the output. `x` has strides for these and for the kernel's rows and columns.

    Channels have stride 1 in x and y; operands have a stride for the channel too. `tile`: pixels of a line at once;
    `lines`: of one job.
    """

    family: ClassVar[str] = "depthwise"

    grid: tuple[int, int, int]
    kernel: tuple[int, int]
    channels: int
    x: Access
    y: Access
    epilogue: Expression
    operands: tuple[Access, ...] = ()
    tile: int = 4
    lines: int = 1

    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument("x", self.x.dtype, self.x.size),
            Argument("weight", self.x.dtype, self.kernel[0] * self.kernel[1] * self.channels),
            Argument("bias", self.x.dtype, self.channels),
            *(Argument(f"operand{i}", a.dtype, a.size) for i, a in enumerate(self.operands)),
            Argument("y", self.y.dtype, self.y.size),
        )

    def emit(self, isa: Isa, x: Any, weight: Any, bias: Any, *rest: Any) -> None:
        batch, height, width = self.grid
        assert self.tile <= width
        lanes = isa.lanes(self.x.dtype)
        whole, tail = divmod(self.channels, lanes)
        parts = ceil_div(height, self.lines)
        with T.parallel(0, batch * parts) as job:
            n, first = T.bind(job // parts), T.bind(job % parts * self.lines)

            def strip(channel: Any, wide: int) -> None:
                lines = span(first, T.min(first + self.lines, height))
                with lines as line, T.serial(0, ceil_div(width, self.tile)) as t:
                    px = T.bind(T.min(t * self.tile, width - self.tile))
                    sums = self._sums((n, line, px), channel, wide, x, weight, bias)
                    for i in range(self.tile):
                        self._write((n, line, px + i), channel, wide, T.bind(sums.get(i)), rest)

            if whole:
                with T.serial(0, whole) as c:
                    strip(c * lanes, lanes)
            for start, wide in pieces(tail, lanes) if tail else ():
                strip(whole * lanes + start, wide)

    def _sums(self, where: tuple[Any, Any, Any], channel: Any, wide: int, x: Any, weight: Any, bias: Any) -> Sums:
        """Of the pixels of one tile. A number of X is loaded once for all of the pixels that read it."""
        sums, rows = Sums(self.tile, wide, self.x.dtype), self.kernel
        base = T.bind(self.x.at(*where, 0, 0) + channel)
        for r in range(rows[0]):
            pixels: dict[int, Any] = {}
            for q in range(rows[1]):
                own = T.bind(load(weight, (r * rows[1] + q) * self.channels + channel, wide))
                for i in range(self.tile):
                    at = r * self.x.strides[3] + q * self.x.strides[4] + i * self.x.strides[2]
                    if at not in pixels:
                        pixels[at] = T.bind(load(x, base + at, wide))
                    product = pixels[at] * own
                    sums.set(i, product if r == q == 0 else sums.get(i) + product)
        own = T.bind(load(bias, channel, wide))
        for i in range(self.tile):  # last: a large one at the start rounds every sum behind it
            sums.set(i, sums.get(i) + own)
        return sums

    def _write(self, where: tuple[Any, Any, Any], channel: Any, wide: int, value: Any, rest: tuple[Any, ...]) -> None:
        *operands, y = rest
        inputs = [value]
        for access, buffer in zip(self.operands, operands, strict=True):
            inputs.append(T.bind(load(buffer, access.at(*where, channel), wide, access.strides[3])))
        store(y, self.y.at(*where) + channel, emit(self.epilogue, inputs, wide), wide)
