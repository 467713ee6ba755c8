"""Depthwise convolution, channels last: every channel has its own k×k filter, vectors run along the channels.

    Y[y, x, c] = epilogue(bias[c] + Σ_(r,q) X[y·s + r·d, x·s + q·d, c] · W[r, q, c])

The weights of a vector of channels stay in registers while it slides along a line. X has a border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, ceil_div, load, pieces, store


@dataclass(frozen=True)
class Depthwise(Kernel):
    """`grid`: batch, height, width of the output. `x` has strides for these and for the kernel's rows and columns.

    Channels have stride 1 in x and y; operands have a stride for the channel too. `tile`: pixels of a line at once.
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
        with T.parallel(0, batch * height) as job:
            n, line = job // height, job % height

            def strip(channel: Any, wide: int) -> None:
                taps = [(r, q) for r in range(self.kernel[0]) for q in range(self.kernel[1])]
                filters = {
                    (r, q): T.bind(load(weight, (r * self.kernel[1] + q) * self.channels + channel, wide))
                    for r, q in taps
                }
                start = T.bind(load(bias, channel, wide))
                with T.serial(0, ceil_div(width, self.tile)) as t:
                    px = T.bind(T.min(t * self.tile, width - self.tile))
                    for i in range(self.tile):
                        value = start
                        for r, q in taps:
                            pixel = load(x, self.x.at(n, line, px + i, r, q) + channel, wide)
                            value = value + pixel * filters[r, q]
                        self._write((n, line, px + i), channel, wide, T.bind(value), rest)

            if whole:
                with T.serial(0, whole) as c:
                    strip(c * lanes, lanes)
            for start, wide in pieces(tail, lanes) if tail else ():
                strip(whole * lanes + start, wide)

    def _write(self, where: tuple[Any, Any, Any], channel: Any, wide: int, value: Any, rest: tuple[Any, ...]) -> None:
        *operands, y = rest
        inputs = [value]
        for access, buffer in zip(self.operands, operands, strict=True):
            inputs.append(T.bind(load(buffer, access.at(*where, channel), wide, access.strides[3])))
        store(y, self.y.at(*where) + channel, emit(self.epilogue, inputs, wide), wide)
