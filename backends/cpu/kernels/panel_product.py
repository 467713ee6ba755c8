"""Family B over panels: images lie channels last, but vectors run along the pixels.

    Y[pixel, m·rows + o] = epilogue(bias[m·rows + o] + Σ_p panel[base(pixel) + index[p]] · W[p, o])

over the blocks p of row m. For some lines of the output at a time: copy their input into a panel; then for every tile
of `vectors` vectors of pixels and every row of blocks multiply, with `rows` × `vectors` sums in registers; as soon as a
vector of channels is complete, transpose it and apply the epilogue along the channels. A block needs one load for each
vector of pixels and one for each output, for rows × vectors multiply-adds (family A: a load for each), and blocks may
be as fine as 1×1.

With more than one pass only some channels of the panel are gone through at a time, so that what a tile reads of them
stays in the first cache for all outputs; the sums wait in memory in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import (
    Access,
    Sums,
    ceil_div,
    held_here,
    load,
    pieces,
    prefetch,
    span,
    store,
    tiles,
    whole_or_rest,
)
from prunec.backends.cpu.kernels.block_product import PREFETCHED, BlockProduct
from prunec.backends.cpu.kernels.panel import Panel, Window, part_of, transposed


@dataclass(frozen=True)
class PanelProduct(BlockProduct):
    """`x` and `y` have the strides of the grid, channels of y stride 1; operands have one for grid and channel.

    `rows` divides the lanes. `strip`: lines and columns of the output that share a panel; `vectors`: of a tile, at
    most. `index` are `Panel.offsets`.
    `chunks` × `groups` jobs run in parallel: parts of the strips and of the outputs.
    """

    family: ClassVar[str] = "panel"

    window: Window = field(kw_only=True)
    strip: tuple[int, int] = field(kw_only=True)
    vectors: int = field(kw_only=True)
    chunks: int = 1
    groups: int = 1

    def panel(self, lanes: int) -> Panel:
        return Panel(self.window, *self.strip, lanes)

    def emit(self, isa: Isa, *buffers: Any) -> None:
        _Body(self, isa.lanes(self.x.dtype), *buffers).emit()


class _Body:
    """The function while it is written."""

    def __init__(
        self, kernel: PanelProduct, lanes: int, x: Any, values: Any, index: Any, pointer: Any, bias: Any, *rest: Any
    ) -> None:
        assert lanes % kernel.rows == 0 and kernel.strip[0] <= kernel.grid[1] and kernel.strip[1] <= kernel.grid[2]
        self.kernel, self.lanes, self.panel = kernel, lanes, kernel.panel(lanes)
        self.x, self.values, self.index, self.pointer, self.bias = x, values, index, pointer, bias
        *self.operands, self.y = rest
        self.squads = ceil_div(kernel.channels, lanes)
        """Vectors of outputs."""

    def emit(self) -> None:
        kernel, lanes, (n, h, w), (lines, columns) = self.kernel, self.lanes, self.kernel.grid, self.kernel.strip
        h_strips, w_strips = ceil_div(h, lines), ceil_div(w, columns)
        strips = n * h_strips * w_strips
        per_chunk, per_group = ceil_div(strips, kernel.chunks), ceil_div(self.squads, kernel.groups)
        staged = (self.squads if kernel.passes > 1 else 1) * kernel.vectors * lanes * lanes
        with T.parallel(0, kernel.chunks * kernel.groups) as job:
            self.held = T.alloc_buffer((self.panel.size,), kernel.x.dtype, scope="global")
            self.stage = T.alloc_buffer((staged,), kernel.x.dtype, scope="global")
            first_strip, first_squad = job // kernel.groups * per_chunk, T.bind(job % kernel.groups * per_group)
            self.own_squads = (first_squad, T.bind(T.min(first_squad + per_group, self.squads)))
            with span(first_strip, T.min(first_strip + per_chunk, strips)) as s:
                image = T.bind(s // (h_strips * w_strips))
                top = T.bind(T.min(s // w_strips % h_strips * lines, h - lines))
                left = T.bind(T.min(s % w_strips * columns, w - columns))
                self.panel.fill(self.x, T.bind(kernel.x.at(image, top, left)), self.held)
                for first, count, vectors in tiles(ceil_div(self.panel.run, lanes), kernel.vectors):
                    with T.serial(0, count) as t:
                        self._tile((image, top, left), T.bind((first + t * vectors) * lanes), vectors)

    def _tile(self, corner: tuple[Any, Any, Any], start: Any, vectors: int) -> None:
        """All outputs of one tile."""
        kernel, size = self.kernel, vectors * self.lanes * self.lanes
        places = self._places(corner, start, vectors * self.lanes)
        if kernel.passes == 1:
            with span(*self.own_squads) as squad:
                for m, place in self._rows(squad, 0, vectors):
                    self._multiply(m, place, vectors, start, m)
                self._write(squad, 0, vectors, places)
            return
        with span(*self.own_squads) as squad:
            for m, place in self._rows(squad, squad * size, vectors):
                for o in range(kernel.rows):
                    own = T.bind(load(self.bias, m * kernel.rows + o, self.lanes, 0))
                    for v in range(vectors):
                        store(self.stage, place + (o * vectors + v) * self.lanes, own, self.lanes)
        with T.serial(0, kernel.passes) as number, span(*self.own_squads) as squad:
            for m, place in self._rows(squad, squad * size, vectors):
                self._multiply(number * kernel.row_blocks + m, place, vectors, start, None)
        with span(*self.own_squads) as squad:
            self._write(squad, squad * size, vectors, places)

    def _rows(self, squad: Any, first: Any, vectors: int) -> Iterator[tuple[Any, Any]]:
        """The body of a loop over the rows of blocks of a vector of outputs: the row, and where its sums are staged."""
        rows = self.kernel.rows
        with T.serial(0, self.lanes // rows) as part:
            m = T.bind(squad * (self.lanes // rows) + part)
            with T.If(m < self.kernel.row_blocks), T.Then():
                yield m, T.bind(first + part * (rows * vectors * self.lanes))

    def _multiply(self, entry: Any, place: Any, vectors: int, start: Any, bias_of: Any) -> None:
        """Add the blocks of one entry of `pointer` to the bias of row `bias_of`, or to what is staged; stage it."""
        rows, lanes = self.kernel.rows, self.lanes
        sums = Sums(rows * vectors, lanes, self.kernel.x.dtype)
        for o in range(rows):
            own = None if bias_of is None else T.bind(load(self.bias, bias_of * rows + o, lanes, 0))
            for v in range(vectors):
                at = o * vectors + v
                sums.set(at, load(self.stage, place + at * lanes, lanes) if own is None else own)
        with span(self.pointer[entry], self.pointer[entry + 1]) as p:
            source = T.bind(start + self.index[p])
            prefetch(self.values, p * rows + PREFETCHED // 4)
            inputs = [T.bind(load(self.held, source + v * lanes, lanes)) for v in range(vectors)]
            for o in range(rows):
                weight = T.bind(T.Broadcast(self.values[p * rows + o], lanes))
                for v, pixels in enumerate(inputs):
                    sums.set(o * vectors + v, sums.get(o * vectors + v) + pixels * weight)
        for at in range(sums.count):
            store(self.stage, place + at * lanes, sums.get(at), lanes)

    def _places(self, corner: tuple[Any, Any, Any], start: Any, count: int) -> Callable[[Access, Any], Any]:
        """Where the pixels of a tile lie in y or an operand, from its offset on: −1 for sums that are not wanted."""
        image, top, left = corner
        tables: dict[tuple[int, ...], Any] = {}
        for access in (self.kernel.y, *self.kernel.operands):
            if access.strides[:3] not in tables:
                tables[access.strides[:3]] = held_here(count, "int32")
        with T.serial(0, count) as i:
            line, column = T.bind((start + i) // self.panel.width), T.bind((start + i) % self.panel.width)
            is_real = T.And(column < self.panel.columns, line < self.panel.lines)
            for strides, table in tables.items():
                at = image * strides[0] + (top + line) * strides[1] + (left + column) * strides[2]
                T.buffer_store(table, T.Select(is_real, at, -1), [i])
        return lambda access, i: tables[access.strides[:3]][i]

    def _write(self, squad: Any, first: Any, vectors: int, places: Callable[[Access, Any], Any]) -> None:
        """Transpose a vector of outputs; epilogue and stores, pixel by pixel."""
        kernel, lanes = self.kernel, self.lanes

        def pixel(sums: Any, i: Any, count: int) -> None:
            place = T.bind(places(kernel.y, i))
            with T.If(place >= 0), T.Then():
                for start, wide in pieces(count, lanes):
                    inputs, channel = [part_of(sums, start, wide, lanes)], squad * lanes + start
                    for access, buffer in zip(kernel.operands, self.operands, strict=True):
                        at = access.offset + places(access, i) + channel * access.strides[3]
                        inputs.append(T.bind(load(buffer, at, wide, access.strides[3])))
                    store(self.y, kernel.y.offset + place + channel, emit(kernel.epilogue, inputs, wide), wide)

        def write(count: int) -> None:
            with T.serial(0, vectors) as v:
                lines = [T.bind(load(self.stage, first + (c * vectors + v) * lanes, lanes)) for c in range(count)]
                for i, sums in enumerate(transposed(lines, lanes, lanes)):
                    pixel(sums, v * lanes + i, count)

        whole_or_rest(squad, kernel.channels, lanes, write)
