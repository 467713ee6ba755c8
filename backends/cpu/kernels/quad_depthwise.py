"""Depthwise convolution over quads of channels: every channel has its own k×k filter, vectors run along the pixels.

    sum[pixel, c] = bias[c] + Σ_(r,q) X[y·s + r·d, x·s + q·d, c] · W[r, q, c]

and then as in `quad_product.py`. A quad is multiplied by weights of which only one is not zero, so that the sums of
each of its channels come out in a vector of their own, as those of a product do. A tile of pixels of one line stays in
registers; columns that a stride skips are taken out when a vector is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, Sums, ceil_div, load, span, store, tiles
from prunec.backends.cpu.kernels.dot import Dot, dot_for
from prunec.backends.cpu.kernels.quad_epilogue import STEPS, Addition, Epilogue
from prunec.backends.cpu.quads import QUAD


@dataclass(frozen=True)
class QuadDepthwise(Kernel):
    """`grid`: batch, height, width of the output. `x`, `y`, `residual`: uint8, strides of image, quad and line.

    `x` begins with what output (0, 0) reads first.
    `clamps`, `addition`: as `Epilogue` has them. `jobs`: parts of the quads that run in parallel.
    """

    family: ClassVar[str] = "quads_depthwise"

    grid: tuple[int, int, int]
    channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    x: Access
    y: Access
    residual: Access | None = None
    addition: Addition = "exact"
    clamps: bool = False
    words: int = 1
    jobs: int = 1

    @property
    def quads(self) -> int:
        return ceil_div(self.channels, QUAD)

    def arguments(self) -> tuple[Argument, ...]:
        taps = self.kernel[0] * self.kernel[1]
        residual = () if self.residual is None else (Argument("residual", "uint8", self.residual.size),)
        return (
            Argument("x", "uint8", self.x.size),
            Argument("values", "int32", self.quads * taps * QUAD * self.words),
            Argument("bias", "int32", self.quads * QUAD),
            Argument("scale", "float32", self.quads * QUAD),
            Argument("steps", "float32", STEPS),
            *residual,
            Argument("y", "uint8", self.y.size),
        )

    def emit(self, isa: Isa, x: Any, values: Any, bias: Any, scale: Any, steps: Any, *rest: Any) -> None:
        dot = dot_for(isa, self.words)
        *residual, y = rest
        epilogue = Epilogue(dot, scale, steps, clamps=self.clamps, addition=self.addition)
        (n, h, w), wide = self.grid, dot.bytes
        vectors = 2 if isa.registers < 32 else 4
        per_job = ceil_div(self.quads, self.jobs)
        with T.parallel(0, self.jobs) as job:
            epilogue.begin()
            with span(job * per_job, T.min((job + 1) * per_job, self.quads)) as c, T.serial(0, n * h) as number:
                image, line = T.bind(number // h), T.bind(number % h)
                source = T.bind(self.x.at(image, c, line * self.strides[0]))
                target = T.bind(self.y.at(image, c, line))
                beside = None if self.residual is None else T.bind(self.residual.at(image, c, line))
                for start, count in _runs(w, dot.lanes, vectors):
                    sums = self._sums(dot, x, source, start, count, c, values, bias)
                    for v in range(count):
                        at = (start + v * dot.lanes) * QUAD
                        other = None if beside is None else T.bind(load(residual[0], beside + at, wide))
                        quads = epilogue.quads(c, [sums.get(o * count + v) for o in range(QUAD)], other)
                        _store(y, target + at, quads, min(dot.lanes, w - start - v * dot.lanes), dot)

    def _sums(self, dot: Dot, x: Any, source: Any, start: int, count: int, c: Any, values: Any, bias: Any) -> Sums:
        """Of `count` vectors of pixels from pixel `start` of a line on: those of channel o are o · count and so on."""
        sums = Sums(QUAD * count, dot.lanes, "int32")
        for o in range(QUAD):
            own = T.bind(load(bias, c * QUAD + o, dot.lanes, 0))
            for v in range(count):
                sums.set(o * count + v, own)
        rows, columns = self.kernel
        step = self.strides[1]
        with T.serial(0, rows) as r:
            base = T.bind(source + r * (self.dilations[0] * self.x.strides[2]) + start * (step * QUAD))
            for q in range(columns):
                at = base + q * self.dilations[1] * QUAD
                pixels = [dot.strided_pixels(x, at + v * dot.bytes * step, step) for v in range(count)]
                for o in range(QUAD):
                    place = ((c * rows + r) * columns + q) * QUAD + o
                    weights = dot.weights(values, place * dot.words)
                    for v in range(count):
                        sums.set(o * count + v, dot.add(sums.get(o * count + v), pixels[v], weights, channel=o))
        return sums


def _runs(width: int, lanes: int, most: int) -> list[tuple[int, int]]:
    """First pixel and number of vectors of the tiles of a line."""
    found = tiles(ceil_div(width, lanes), most)
    return [((first + t * size) * lanes, size) for first, count, size in found for t in range(count)]


def _store(y: Any, place: Any, quads: Any, pixels: int, dot: Dot) -> None:
    """So many pixels of a vector."""
    start, part = 0, dot.lanes
    while start < pixels:
        while part > pixels - start:
            part //= 2
        first = list(range(start * QUAD, (start + part) * QUAD))
        value = quads if part == dot.lanes else T.Shuffle([quads], first)
        store(y, place + start * QUAD, value, part * QUAD)
        start += part
