"""Between floats and quads of channels, and what lies around images.

    q = clamp(rint(x / scale) + zero, 0, 255)          x = (q − zero) · scale

Vectors run along the pixels of a line, or along the channels of a pixel where those are the near axis of the floats:
then squares of quads × pixels are transposed. What fills no vector is done again with the last one that is full, or
one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, ceil_div, load, splat, store
from prunec.backends.cpu.kernels.dot import dot_for
from prunec.backends.cpu.kernels.panel import transposed
from prunec.backends.cpu.quads import QUAD, Quads

SCALE, ZERO, STEPS = range(3)
"""Places in the argument `steps`."""


@dataclass(frozen=True)
class _Conversion(Kernel):
    """`grid`: batch, channels, height, width. `floats`: strides of all four; `quads`: of image, quad and line."""

    grid: tuple[int, int, int, int]
    floats: Access
    quads: Access

    def _lines(self, quads: int, lanes: int, body: Callable[[Any, Any, Any, Any, bool], None]) -> None:
        """`body(image, quad, line, pixel, is_vector)`, for so many quads at a time, over all pixels."""
        n, channels, h, w = self.grid
        step = lanes if w >= lanes else 1
        with T.parallel(0, ceil_div(ceil_div(channels, QUAD), quads)) as part:
            quad = T.bind(part * quads)
            with T.serial(0, n) as image, T.serial(0, h) as line, T.serial(0, ceil_div(w, step)) as v:
                body(image, quad, line, T.bind(T.min(v * step, w - step)), step > 1)


@dataclass(frozen=True)
class Quantise(_Conversion):
    """Channels beyond the last one hold anything."""

    family: ClassVar[str] = "quantise"

    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument("x", "float32", self.floats.size),
            Argument("steps", "float32", STEPS),
            Argument("y", "uint8", self.quads.size),
        )

    def emit(self, isa: Isa, x: Any, steps: Any, y: Any) -> None:
        dot, channels, strides = dot_for(isa), self.grid[1], self.floats.strides
        lanes = dot.lanes

        def stepped(position: Any, lanes: int) -> Any:
            values = T.bind(load(x, position, lanes))
            return T.bind(values / load(steps, SCALE, lanes, 0))

        def pixels(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            """One vector of pixels of a quad."""
            ints = []
            for o in range(QUAD):
                channel = T.bind(T.min(quad * QUAD + o, channels - 1))
                ints.append(dot.rounded(_bounded(stepped(self.floats.at(image, channel, line, pixel), lanes), lanes)))
            zero = T.bind(T.Broadcast(T.bind(T.Cast("int16", steps[ZERO])), dot.bytes // 2))
            store(y, self.quads.at(image, quad, line) + pixel * QUAD, dot.quads(ints, zero), dot.bytes)

        def square(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            """`lanes` channels of `lanes` pixels."""
            rows = []
            for i in range(lanes):
                at = self.floats.at(image, quad * QUAD, line, pixel + i)
                ints = dot.rounded(_bounded(stepped(at, lanes), lanes)) + T.Cast(
                    f"int32x{lanes}", T.Broadcast(T.Cast("int32", steps[ZERO]), lanes)
                )
                limited = T.bind(
                    T.min(T.bind(T.max(T.bind(ints), splat(0, lanes, "int32"))), splat(255, lanes, "int32"))
                )
                rows.append(T.bind(T.reinterpret(_typed("int32", lanes // QUAD), T.Cast(f"uint8x{lanes}", limited))))
            for q, words in enumerate(transposed(rows, lanes // QUAD, lanes)):
                place = self.quads.at(image, quad + q, line) + pixel * QUAD
                store(y, place, T.reinterpret(f"uint8x{dot.bytes}", words), dot.bytes)

        def one(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            at = T.bind(self.quads.at(image, quad, line) + pixel * QUAD)
            for o in range(QUAD):
                channel = T.bind(T.min(quad * QUAD + o, channels - 1))
                value = _bounded(stepped(self.floats.at(image, channel, line, pixel), 1), 1)
                moved = T.bind(T.nearbyint(value) + steps[ZERO])
                T.buffer_store(y, T.Cast("uint8", T.min(T.max(moved, T.float32(0)), T.float32(255))), [at + o])

        def vector(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            if strides[3] == 1:
                pixels(image, quad, line, pixel)
            else:
                with T.serial(0, lanes) as i:
                    one(image, quad, line, T.bind(pixel + i))

        squares = strides[1] == 1 and strides[3] != 1 and channels % lanes == 0 and self.grid[3] >= lanes
        if squares:
            self._lines(lanes // QUAD, lanes, lambda n, c, h, w, _: square(n, c, h, w))
            return
        self._lines(1, lanes, lambda n, c, h, w, is_vector: (vector if is_vector else one)(n, c, h, w))


@dataclass(frozen=True)
class Dequantise(_Conversion):
    family: ClassVar[str] = "dequantise"

    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument("x", "uint8", self.quads.size),
            Argument("steps", "float32", STEPS),
            Argument("y", "float32", self.floats.size),
        )

    def emit(self, isa: Isa, x: Any, steps: Any, y: Any) -> None:
        dot, channels, strides = dot_for(isa), self.grid[1], self.floats.strides
        lanes = dot.lanes

        def real(values: Any, wide: int) -> Any:
            moved = T.Cast(_typed("float32", wide), values) - load(steps, ZERO, wide, 0)
            return T.bind(T.bind(moved) * load(steps, SCALE, wide, 0))

        def each(quad: Any, body: Callable[[int], None]) -> None:
            for o in range(QUAD):
                if channels % QUAD and o >= channels % QUAD:
                    with T.If(quad * QUAD + o < channels), T.Then():
                        body(o)
                else:
                    body(o)

        def vector(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            quads = T.bind(load(x, self.quads.at(image, quad, line) + pixel * QUAD, dot.bytes))

            def channel(o: int) -> None:
                place = self.floats.at(image, quad * QUAD + o, line, pixel)
                store(y, place, real(dot.channel(quads, o), lanes), lanes)

            each(quad, channel)

        def pixels(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            """Four channels side by side, pixel by pixel."""
            with T.serial(0, lanes) as i:
                at = T.bind(self.quads.at(image, quad, line) + (pixel + i) * QUAD)
                place = T.bind(self.floats.at(image, quad * QUAD, line, pixel + i))
                store(y, place, real(T.bind(load(x, at, QUAD)), QUAD), QUAD)

        def one(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            at = T.bind(self.quads.at(image, quad, line) + pixel * QUAD)

            def channel(o: int) -> None:
                value = T.bind(T.Cast("int32", x[at + o]))
                T.buffer_store(y, real(value, 1), [self.floats.at(image, quad * QUAD + o, line, pixel)])

            each(quad, channel)

        def several(image: Any, quad: Any, line: Any, pixel: Any) -> None:
            with T.serial(0, lanes) as i:
                one(image, quad, line, T.bind(pixel + i))

        whole = pixels if strides[1] == 1 and channels % QUAD == 0 else several
        best = vector if strides[3] == 1 else whole
        self._lines(1, lanes, lambda n, c, h, w, is_vector: (best if is_vector else one)(n, c, h, w))


@dataclass(frozen=True)
class QuadBorder(Kernel):
    """Writes the argument `zero` wherever `layout` has no pixel."""

    family: ClassVar[str] = "quad_border"

    layout: Quads

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("zero", "uint8", 1), Argument("y", "uint8", self.layout.size))

    def emit(self, isa: Isa, zero: Any, y: Any) -> None:
        layout, wide = self.layout, isa.vector_bytes
        with T.parallel(0, layout.batch * layout.quads) as number:
            start = T.bind(number * layout.strides[1])

            def fill(first: Any, count: int) -> None:
                done = count // wide * wide
                if done:
                    with T.serial(0, count // wide) as v:
                        store(y, first + v * wide, load(zero, 0, wide, 0), wide)
                part = wide
                while count > done:
                    part = part // 2 if part > count - done else part
                    if part <= count - done:
                        store(y, first + done, load(zero, 0, part, 0), part)
                        done += part

            fill(start, layout.first)
            if layout.gap and layout.height > 1:
                with T.serial(0, layout.height - 1) as line:
                    end = T.bind(start + layout.first + line * layout.strides[2] + layout.width * QUAD)
                    fill(end, layout.gap * QUAD)
            end_of_image = layout.first + layout.run * QUAD
            fill(start + end_of_image, layout.strides[1] - end_of_image)


def _bounded(values: Any, lanes: int) -> Any:
    """Within what fits into int32, and beyond what bytes hold."""
    high = T.bind(T.min(values, splat(65536.0, lanes)))
    return T.bind(T.max(high, splat(-65536.0, lanes)))


def _typed(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"
