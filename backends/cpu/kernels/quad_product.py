"""int8 products over quads of channels: blocks of 4 outputs × 4 inputs, vectors along the pixels, sums exact in int32.

    sum[pixel, 4m + o] = bias[4m + o] + Σ_p Σ_i X[base(pixel) + index[p], i] · W[p, o, i]        p over the blocks of m

The sums become bytes (`quad_epilogue.py`) or floats. A block needs one load for each vector of pixels and one broadcast
for each of its outputs, for 4 × vectors four-way products. Outputs lie as far apart as the pixels that they read, so a
run of pixels goes on over the ends of lines; where lines of Y are apart as well, vectors of quads are stored as they
are, else line by line. Strided convolutions, and others where that pays, read a panel (`quad_panel.py`).

With more than one pass only some channels are gone through at a time, so that what a tile reads of them stays in the
first cache for all outputs; the sums wait in memory in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import (
    Access,
    Argument,
    Kernel,
    Sums,
    ceil_div,
    held_here,
    load,
    pieces,
    prefetch,
    span,
    splat,
    store,
    tiles,
    whole_or_rest,
)
from prunec.backends.cpu.kernels.dot import Dot, dot_for
from prunec.backends.cpu.kernels.panel import part_of, transposed
from prunec.backends.cpu.kernels.quad_epilogue import STEPS, Addition, Epilogue
from prunec.backends.cpu.kernels.quad_panel import QuadPanel
from prunec.backends.cpu.quads import QUAD

PREFETCHED = 1024
"""Bytes ahead of the weights in use, which are read once for every tile."""


@dataclass(frozen=True)
class QuadProduct(Kernel):
    """`grid`: batch, height, width of the output. `columns`: most blocks that one row of blocks can have.

    `x`: uint8, bytes from image to image, quad to quad and line to line, from what output (0, 0) reads first.
    `y`: uint8 and the same strides, or float32 with one for image and row: all pixels of an image follow each other.
    `residual`: as y, uint8. `panel`: what is copied of X for so many lines; None: X is read where it is.
    `vectors`: of pixels in a tile, at most. `clamps`, `addition`: as `Epilogue` has them.
    `chunks` × `groups` jobs run in parallel: parts of the tiles or strips, and of the outputs.
    """

    family: ClassVar[str] = "quads"

    grid: tuple[int, int, int]
    channels: int
    columns: int
    x: Access
    y: Access
    panel: QuadPanel | None = None
    residual: Access | None = None
    addition: Addition = "exact"
    vectors: int = 4
    passes: int = 1
    clamps: bool = False
    words: int = 1
    chunks: int = 1
    groups: int = 1

    @property
    def row_blocks(self) -> int:
        return ceil_div(self.channels, QUAD)

    @property
    def pitch(self) -> int:
        """Pixels that two lines of outputs are apart while they are computed."""
        return self.x.strides[2] // QUAD if self.panel is None else self.panel.pitch

    @property
    def lines(self) -> int:
        """Lines that are computed as one run."""
        return self.grid[1] if self.panel is None else self.panel.lines

    @property
    def run(self) -> int:
        return (self.lines - 1) * self.pitch + self.grid[2]

    @property
    def is_direct(self) -> bool:
        """Whether Y takes vectors of quads as they are computed."""
        if self.y.dtype != "uint8" or self.lines != self.grid[1]:
            return False
        images = (self.y, *(() if self.residual is None else (self.residual,)))
        return self.lines == 1 or all(image.strides[2] == QUAD * self.pitch for image in images)

    def arguments(self) -> tuple[Argument, ...]:
        blocks = self.row_blocks * self.columns
        residual = () if self.residual is None else (Argument("residual", "uint8", self.residual.size),)
        return (
            Argument("x", "uint8", self.x.size),
            Argument("values", "int32", blocks * QUAD * self.words),
            Argument("index", "int32", blocks),
            Argument("pointer", "int32", self.row_blocks * self.passes + 1),
            Argument("bias", "int32", self.row_blocks * QUAD),
            Argument("scale", "float32", self.row_blocks * QUAD),
            Argument("steps", "float32", STEPS),
            *residual,
            Argument("y", self.y.dtype, self.y.size),
        )

    def emit(self, isa: Isa, *buffers: Any) -> None:
        _Body(self, dot_for(isa, self.words), *buffers).emit()


class _Body:
    """The function while it is written."""

    def __init__(
        self, kernel: QuadProduct, dot: Dot, x: Any, values: Any, index: Any, pointer: Any, bias: Any, scale: Any,
        steps: Any, *rest: Any,
    ) -> None:  # fmt: skip
        self.kernel, self.dot, self.lanes = kernel, dot, dot.lanes
        self.x, self.values, self.index, self.pointer, self.bias = x, values, index, pointer, bias
        self.epilogue = Epilogue(dot, scale, steps, clamps=kernel.clamps, addition=kernel.addition)
        *residual, self.y = rest
        self.residual = residual[0] if residual else None
        self.is_float = kernel.y.dtype == "float32"
        self.squad = self.lanes // QUAD if self.is_float else 1
        """Rows of blocks that are written together."""
        self.width = QUAD + dot.extra
        """Sums of a row of blocks for every vector of pixels."""
        self.tile_bytes = kernel.vectors * dot.bytes

    def emit(self) -> None:
        kernel, (n, h, _) = self.kernel, self.kernel.grid
        squads = ceil_div(kernel.row_blocks, self.squad)
        per_group = ceil_div(squads, kernel.groups)
        strips = ceil_div(h, kernel.lines)
        of_run = list(tiles(ceil_div(kernel.run, self.lanes), kernel.vectors))
        with T.parallel(0, kernel.chunks * kernel.groups) as job:
            chunk, first = T.bind(job // kernel.groups), T.bind(job % kernel.groups * per_group)
            self.first_row = first * self.squad
            last = T.bind(T.min(first + per_group, squads))
            self.own = (first, last)
            self._hold(per_group * self.squad)
            if kernel.panel is None:
                with T.serial(0, n) as image:
                    start = T.bind(kernel.x.offset + image * kernel.x.strides[0])
                    for at, count, vectors in of_run:
                        per_chunk = ceil_div(count, kernel.chunks)
                        with span(chunk * per_chunk, T.min((chunk + 1) * per_chunk, count)) as t:
                            self._tile((image, 0), self.x, start, T.bind((at + t * vectors) * self.lanes), vectors)
                return
            per_chunk = ceil_div(n * strips, kernel.chunks)
            with span(chunk * per_chunk, T.min((chunk + 1) * per_chunk, n * strips)) as s:
                image, top = T.bind(s // strips), T.bind(T.min(s % strips * kernel.lines, h - kernel.lines))
                down = kernel.panel.strides[0] * kernel.x.strides[2]
                start = T.bind(kernel.x.offset + image * kernel.x.strides[0] + top * down)
                apart = (kernel.x.strides[1], kernel.x.strides[2])
                kernel.panel.fill(self.x, start, apart, self.held, self.dot.bytes)
                for at, count, vectors in of_run:
                    with T.serial(0, count) as t:
                        self._tile((image, top), self.held, 0, T.bind((at + t * vectors) * self.lanes), vectors)

    def _hold(self, rows: int) -> None:
        """The buffers of a job."""
        kernel = self.kernel
        if kernel.panel is not None:
            self.held = T.alloc_buffer((kernel.panel.size,), "uint8", scope="global")
        if kernel.passes > 1:
            self.waiting = T.alloc_buffer((rows * self.width * self.tile_bytes // 4,), "int32", scope="global")
        if self.is_float:
            self.stage = T.alloc_buffer((self.squad * QUAD * self.tile_bytes // 4,), "float32", scope="global")
        elif not kernel.is_direct:
            self.stage = T.alloc_buffer((rows * self.tile_bytes,), "uint8", scope="global")

    def _tile(self, corner: tuple[Any, Any], x: Any, base: Any, start: Any, vectors: int) -> None:
        """All outputs of `vectors` vectors of pixels from pixel `start` of the run on."""
        kernel = self.kernel
        source = T.bind(base + start * QUAD)
        if not self.is_float:
            self.epilogue.begin()

        def finish(m: Any, sums: Sums) -> None:
            if self.is_float:
                self._stage_floats(m, sums, vectors)
                return
            for v in range(vectors):
                beside = self._staged(m, v)
                held = beside if not kernel.is_direct else start * QUAD + v * self.dot.bytes
                residual = None
                if kernel.residual is not None:
                    at = kernel.residual.at(corner[0], m, 0) + held if kernel.is_direct else beside
                    residual = T.bind(load(self.residual if kernel.is_direct else self.stage, at, self.dot.bytes))
                quads = self.epilogue.quads(m, [self._sum(sums, o, v, vectors) for o in range(QUAD)], residual)
                if kernel.is_direct:
                    store(self.y, kernel.y.at(corner[0], m, 0) + held, quads, self.dot.bytes)
                else:
                    store(self.stage, beside, quads, self.dot.bytes)

        if kernel.residual is not None and not kernel.is_direct:
            self._copy_lines(corner, start, vectors * self.lanes, is_residual=True)

        if kernel.passes == 1:
            with self._rows(corner, start, vectors) as m:
                sums = self._started(m, vectors)
                self._multiply(m, x, source, sums, vectors)
                finish(m, sums)
        if kernel.passes > 1:
            with T.serial(0, kernel.passes - 1) as number, span(*self._own_rows()) as m:
                place = T.bind((m - self.first_row) * (self.width * self.tile_bytes // 4))
                sums = Sums(self.width * vectors, self.lanes, "int32")
                with T.If(number == 0):
                    with T.Then():
                        self._start(sums, m, vectors)
                    with T.Else():
                        self._fetch(sums, place)
                self._multiply(number * kernel.row_blocks + m, x, source, sums, vectors)
                for at in range(sums.count):
                    store(self.waiting, place + at * self.lanes, sums.get(at), self.lanes)
            with self._rows(corner, start, vectors) as m:
                place = T.bind((m - self.first_row) * (self.width * self.tile_bytes // 4))
                sums = Sums(self.width * vectors, self.lanes, "int32")
                self._fetch(sums, place)
                self._multiply((kernel.passes - 1) * kernel.row_blocks + m, x, source, sums, vectors)
                finish(m, sums)
        if not self.is_float and not kernel.is_direct:
            self._copy_lines(corner, start, vectors * self.lanes)

    def _own_rows(self) -> tuple[Any, Any]:
        return T.bind(self.own[0] * self.squad), T.bind(T.min(self.own[1] * self.squad, self.kernel.row_blocks))

    @contextmanager
    def _rows(self, corner: tuple[Any, Any], start: Any, vectors: int) -> Iterator[Any]:
        """The body of a loop over the rows of blocks of this job; behind it floats are written."""
        if not self.is_float:
            with span(*self._own_rows()) as m:
                yield m
            return
        places = self._places(corner, start, vectors * self.lanes)
        with span(*self.own) as squad:
            with T.serial(0, self.squad) as part:
                m = T.bind(squad * self.squad + part)
                with T.If(m < self.kernel.row_blocks), T.Then():
                    yield m
            self._write_floats(squad, vectors, places)

    def _started(self, m: Any, vectors: int) -> Sums:
        sums = Sums(self.width * vectors, self.lanes, "int32")
        self._start(sums, m, vectors)
        return sums

    def _start(self, sums: Sums, m: Any, vectors: int) -> None:
        for o in range(QUAD):
            own = T.bind(load(self.bias, m * QUAD + o, self.lanes, 0))
            for v in range(vectors):
                sums.set(o * vectors + v, own)
        for at in range(QUAD * vectors, sums.count):
            sums.set(at, splat(0, self.lanes, "int32"))

    def _sum(self, sums: Sums, output: int, vector: int, vectors: int) -> Any:
        """Of one output of a row of blocks, all blocks being added."""
        extra = sums.get(QUAD * vectors + vector) if self.dot.extra else None
        return self.dot.total(sums.get(output * vectors + vector), extra)

    def _fetch(self, sums: Sums, place: Any) -> None:
        for at in range(sums.count):
            sums.set(at, load(self.waiting, place + at * self.lanes, self.lanes))

    def _multiply(self, entry: Any, x: Any, source: Any, sums: Sums, vectors: int) -> None:
        """Add the blocks of one entry of `pointer`."""
        dot = self.dot
        block = QUAD * dot.words
        # In 64 bits, as addresses are: else every block extends the sign of each of its positions.
        first, last = (T.bind(T.Cast("int64", self.pointer[entry + n])) for n in (0, 1))
        base = T.bind(T.Cast("int64", source))
        with T.serial(T.int64(0), last - first) as step:
            p = T.bind(first + step)
            at = self._seen(base + T.Cast("int64", self.index[p]))
            words = self._seen(p * block)
            prefetch(self.values, words + PREFETCHED // 4)
            pixels = [dot.pixels(x, at + v * dot.bytes) for v in range(vectors)]
            for o, weights in enumerate(dot.block(self.values, words)):
                for v in range(vectors):
                    sums.set(o * vectors + v, dot.add(sums.get(o * vectors + v), pixels[v], weights))
            for at in range(QUAD * vectors, sums.count):
                sums.set(at, dot.add_extra(sums.get(at), pixels[at - QUAD * vectors]))

    def _seen(self, position: Any) -> Any:
        """A position that a compiler sees not to be negative: its distances become offsets of loads (decision 0016)."""
        if not self.dot.isa.loads_ahead:
            return T.bind(position)
        return T.bind(T.bitwise_and(T.Cast("int32", position), T.int32(0x7FFFFFFF)))

    def _staged(self, m: Any, v: int) -> Any:
        return (m - self.first_row) * self.tile_bytes + v * self.dot.bytes

    def _copy_lines(self, corner: tuple[Any, Any], start: Any, count: int, *, is_residual: bool = False) -> None:
        """From the stage to Y what a tile computed, or from the residual to the stage, line by line."""
        kernel, pitch, width = self.kernel, self.kernel.pitch, self.kernel.grid[2]
        first = T.bind(start // pitch)
        with T.serial(0, ceil_div(count - 1, pitch) + 1) as i:
            line = T.bind(first + i)
            begin = T.bind(T.max(start, line * pitch))
            length = T.bind(T.min(start + count, line * pitch + width) - begin)
            with T.If(T.And(line < kernel.lines, length > 0)), T.Then(), span(*self._own_rows()) as m:
                source = T.bind((m - self.first_row) * self.tile_bytes + (begin - start) * QUAD)
                access = kernel.residual if is_residual else kernel.y
                assert access is not None
                place = T.bind(access.at(corner[0], m, corner[1] + line) + (begin - line * pitch) * QUAD)
                if is_residual:
                    self._copy(self.residual, place, self.stage, source, length)
                else:
                    self._copy(self.stage, source, self.y, place, length)

    def _copy(self, x: Any, source: Any, y: Any, place: Any, length: Any) -> None:
        """So many pixels, exactly."""
        with T.serial(0, length // self.lanes) as v:
            wide = self.dot.bytes
            store(y, place + v * wide, load(x, source + v * wide, wide), wide)
        part = self.lanes // 2
        while part:
            done = T.bind(length // (2 * part) * (2 * part) * QUAD)
            with T.If(T.bitwise_and(length, part) != 0), T.Then():
                wide = part * QUAD
                store(y, place + done, load(x, source + done, wide), wide)
            part //= 2

    def _stage_floats(self, m: Any, sums: Sums, vectors: int) -> None:
        """Scaled and clamped: [channel of the squad, vector, lane]."""
        for o in range(QUAD):
            for v in range(vectors):
                value = self.epilogue.limited(self.epilogue.scaled(m, o, self._sum(sums, o, v, vectors)))
                at = ((m % self.squad * QUAD + o) * vectors + v) * self.lanes
                store(self.stage, at, value, self.lanes)

    def _places(self, corner: tuple[Any, Any], start: Any, count: int) -> Any:
        """Where the rows of a tile lie in Y: −1 for sums that are not wanted."""
        kernel, (_, _, width) = self.kernel, self.kernel.grid
        table = held_here(count, "int32")
        with T.serial(0, count) as i:
            line, column = T.bind((start + i) // kernel.pitch), T.bind((start + i) % kernel.pitch)
            is_real = T.And(column < width, line < kernel.lines)
            at = kernel.y.at(corner[0], (corner[1] + line) * width + column)
            T.buffer_store(table, T.Select(is_real, at, -1), [i])
        return table

    def _write_floats(self, squad: Any, vectors: int, places: Any) -> None:
        """Transpose a vector of outputs and store it, pixel by pixel."""
        lanes = self.lanes

        def write(count: int) -> None:
            with T.serial(0, vectors) as v:
                lines = [T.bind(load(self.stage, (c * vectors + v) * lanes, lanes)) for c in range(count)]
                for i, values in enumerate(transposed(lines, lanes, lanes)):
                    place = T.bind(places[v * lanes + i])
                    with T.If(place >= 0), T.Then():
                        for start, wide in pieces(count, lanes):
                            store(self.y, place + squad * lanes + start, part_of(values, start, wide, lanes), wide)

        whole_or_rest(squad, self.kernel.channels, lanes, write)
