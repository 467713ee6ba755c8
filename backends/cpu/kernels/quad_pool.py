"""Maximum over windows and mean over planes of quads of channels (`quads.Quads`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, ceil_div, held_here, load, pieces, span, store

QUAD = 4


@dataclass(frozen=True)
class QuadMaxPool(Kernel):
    """Windows [kernel] at y·stride − pad, clipped to the image, dilated.

    `grid`: planes (batch · quads), height and width of the output; `size` of the input. `x` and `y`: bytes from plane
    to plane and line to line. One line of maxima over the rows of a window, with zeros on both sides, then the maxima
    along it.
    """

    family: ClassVar[str] = "quad_max_pool"

    grid: tuple[int, int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]
    dilations: tuple[int, int]
    x: Access
    y: Access

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("x", "uint8", self.x.size), Argument("y", "uint8", self.y.size))

    def emit(self, isa: Isa, x: Any, y: Any) -> None:
        planes, height, width = self.grid
        reach = (width - 1) * self.strides[1] + (self.kernel[1] - 1) * self.dilations[1] + 1
        line = QUAD * max(reach, self.pads[1] + self.size[1])
        with T.parallel(0, planes) as plane:
            held = held_here(ceil_div(line, isa.vector_bytes) * isa.vector_bytes, "uint8")
            for start, wide in pieces(line, isa.vector_bytes):  # a few vectors: what lies beside the image stays 0
                store(held, start, _bytes(0, wide), wide)
            with T.serial(0, height) as py:
                top = T.bind(py * self.strides[0] - self.pads[0])
                step = self.dilations[0]
                first = T.bind(T.max((step - 1 - top) // step, 0))
                last = T.bind(T.min((self.size[0] - top + step - 1) // step, self.kernel[0]))
                base = T.bind(self.x.at(plane, top))

                def column(at: Any, wide: int) -> None:
                    best = held_here(wide, "uint8")
                    store(best, 0, _bytes(0, wide), wide)
                    with span(first, last) as r:
                        value = load(x, base + r * (step * self.x.strides[1]) + at, wide)
                        store(best, 0, T.max(load(best, 0, wide), value), wide)
                    store(held, QUAD * self.pads[1] + at, load(best, 0, wide), wide)

                whole, tail = divmod(QUAD * self.size[1], isa.vector_bytes)
                if whole:
                    with T.serial(0, whole) as i:
                        column(i * isa.vector_bytes, isa.vector_bytes)
                for start, wide in pieces(tail, isa.vector_bytes) if tail else ():
                    column(whole * isa.vector_bytes + start, wide)
                target = T.bind(self.y.at(plane, py))
                with T.serial(0, width) as px:
                    value = None
                    for tap in range(self.kernel[1]):
                        own = load(held, (px * self.strides[1] + tap * self.dilations[1]) * QUAD, QUAD)
                        value = own if value is None else T.max(value, own)
                    store(y, target + px * QUAD, value, QUAD)


@dataclass(frozen=True)
class QuadMean(Kernel):
    """Mean of the pixels of every channel, in numbers: float32 [batch, channels].

    `grid`: batch, quads, height, width; `x`: bytes from image to image, quad to quad, line to line. `steps`: the zero
    point, and the scale over the number of pixels.
    """

    family: ClassVar[str] = "quad_mean"

    grid: tuple[int, int, int, int]
    channels: int
    x: Access

    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument("x", "uint8", self.x.size), Argument("steps", "float32", 2),
            Argument("y", "float32", self.grid[0] * self.channels),
        )  # fmt: skip

    def emit(self, isa: Isa, x: Any, steps: Any, y: Any) -> None:
        batch, quads, height, width = self.grid
        with T.serial(0, batch) as n, T.serial(0, quads) as q:
            sums = held_here(QUAD, "int32")
            store(sums, 0, T.Broadcast(T.int32(0), QUAD), QUAD)
            with T.serial(0, height) as line, T.serial(0, width) as pixel:
                own = T.Cast("int32x4", load(x, self.x.at(n, q, line) + pixel * QUAD, QUAD))
                store(sums, 0, load(sums, 0, QUAD) + own, QUAD)
            zero = T.bind(steps[0] * T.float32(height * width))
            with T.serial(0, T.min(QUAD, self.channels - q * QUAD)) as c:
                store(y, n * self.channels + q * QUAD + c, (T.Cast("float32", sums[c]) - zero) * steps[1], 1)


def _bytes(value: int, wide: int) -> Any:
    return T.uint8(value) if wide == 1 else T.Broadcast(T.uint8(value), wide)
