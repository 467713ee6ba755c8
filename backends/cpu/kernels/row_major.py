"""Family A: channels last, blocks of `rows` output channels × 1 input element; vectors run along output channels.

    Y[pixel, m·rows + v] = epilogue(bias[m·rows + v] + Σ_p X[base(pixel) + index[p]] · W[p, v])   p over the blocks of m

One generator serves a convolution of any kernel, stride, dilation and groups over an input with a border (`index` is
the flat offset of kernel position and channel, so nothing is copied), a 1×1 convolution and a matrix product (pixels
are rows). Dense is the same with every block present. X may lie in any layout, channels first too.

A tile of th × tw pixels stays in registers, with rows / lanes vectors each. The last line of tiles may be lower; where
tiles do not divide the width the last one overlaps its neighbour and computes the same numbers again.

With more than one pass only some channels of X are gone through at a time, so that what a tile reads of them stays in
the first cache for all rows of blocks; the sums wait in memory in between.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
    splat,
    store,
)
from prunec.backends.cpu.kernels.block_product import AHEAD, PREFETCHED, BlockProduct

Order = Literal["rows", "tiles"]


@dataclass(frozen=True)
class RowMajor(BlockProduct):
    """`x` and `y` have the strides of the grid, their channels stride 1; operands have one for grid and channel.

    `chunks` × `groups` jobs run in parallel: `chunks` parts of the pixel tiles, `groups` parts of the rows of blocks.
    `order`: the outer loop within a job. Rows: weights stay in the first cache while tiles go by, and are read once.
    Tiles: X does, and Y is written in order.
    """

    family: ClassVar[str] = "row_major"

    tile: tuple[int, int] = (1, 14)
    chunks: int = 1
    groups: int = 1
    order: Order = "rows"

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Tiles along batch, height, width."""
        n, h, w = self.grid
        return n, ceil_div(h, self.tile[0]), ceil_div(w, self.tile[1])

    def overwritable(self) -> tuple[int, ...]:
        if self.grid[2] % self.tile[1]:
            return ()  # tiles overlap
        y = Access(self.y.size, self.y.offset, (*self.y.strides, 1), self.y.dtype)
        first = len(self.arguments()) - 1 - len(self.operands)
        return tuple(first + i for i, operand in enumerate(self.operands) if operand == y)

    def emit(self, isa: Isa, *buffers: Any) -> None:
        _Body(self, isa, *buffers).emit()


class _Body:
    """The function while it is written."""

    def __init__(
        self, kernel: RowMajor, isa: Isa, x: Any, values: Any, index: Any, pointer: Any, bias: Any, *rest: Any
    ) -> None:
        lanes = min(isa.lanes(kernel.x.dtype), kernel.rows)
        assert kernel.rows % lanes == 0 and kernel.tile[0] <= kernel.grid[1] and kernel.tile[1] <= kernel.grid[2]
        self.kernel, self.isa, self.lanes, self.vectors = kernel, isa, lanes, kernel.rows // lanes
        self.x, self.values, self.index, self.pointer, self.bias = x, values, index, pointer, bias
        *self.operands, self.y = rest
        self.staged = kernel.tile[0] * kernel.tile[1] * kernel.rows
        """Sums of one tile and row of blocks."""

    def emit(self) -> None:
        kernel, tiles = self.kernel, self.kernel.tiles[0] * self.kernel.tiles[1] * self.kernel.tiles[2]
        per_chunk, per_group = ceil_div(tiles, kernel.chunks), ceil_div(kernel.row_blocks, kernel.groups)
        with T.parallel(0, kernel.chunks * kernel.groups) as job:
            first_tile, first_row = T.bind(job // kernel.groups * per_chunk), T.bind(job % kernel.groups * per_group)
            last_tile = T.bind(T.min(first_tile + per_chunk, tiles))
            last_row = T.bind(T.min(first_row + per_group, kernel.row_blocks))
            if kernel.passes > 1:
                held = per_group * (per_chunk if kernel.order == "rows" else 1)
                self.stage = T.alloc_buffer((held * self.staged,), kernel.x.dtype, scope="global")
            if kernel.order == "rows":
                with self._passes() as number, span(first_row, last_row) as m, span(first_tile, last_tile) as t:
                    place = ((m - first_row) * per_chunk + t - first_tile) * self.staged
                    self._tile(t, m, number, place)
            else:
                with span(first_tile, last_tile) as t, self._passes() as number, span(first_row, last_row) as m:
                    self._tile(t, m, number, (m - first_row) * self.staged)

    def _passes(self) -> Any:
        return T.serial(0, self.kernel.passes) if self.kernel.passes > 1 else nullcontext(0)

    def _tile(self, t: Any, m: Any, number: Any, place: Any) -> None:
        (_, h, w), (th, tw), (_, h_tiles, w_tiles) = self.kernel.grid, self.kernel.tile, self.kernel.tiles
        line = T.bind(t // w_tiles % h_tiles)
        corner = (t // (h_tiles * w_tiles), T.bind(line * th), T.bind(T.min(t % w_tiles * tw, w - tw)))
        full, rest = divmod(h, th)
        if not rest:
            self._pixels(corner, th, m, number, place)
            return
        with T.If(line < full):
            with T.Then():
                self._pixels(corner, th, m, number, place)
            with T.Else():
                self._pixels(corner, rest, m, number, place)

    def _pixels(self, corner: tuple[Any, Any, Any], lines: int, m: Any, number: Any, place: Any) -> None:
        """One tile of so many lines and one row of blocks."""
        kernel, lanes, rows = self.kernel, self.lanes, self.kernel.rows
        pixels = [(dy, dx) for dy in range(lines) for dx in range(kernel.tile[1])]
        sums = Sums(len(pixels) * rows // lanes, lanes, kernel.x.dtype)

        def add_staged() -> None:  # at the end: sums of parts round less than one of all
            for i in range(sums.count):
                sums.set(i, sums.get(i) + load(self.stage, place + i * lanes, lanes))

        def finish() -> None:  # the bias last: a large one at the start rounds every sum behind it
            for v in range(0, rows, lanes):
                own = T.bind(load(self.bias, m * rows + v, lanes))
                for i in range(v // lanes, sums.count, self.vectors):
                    sums.set(i, sums.get(i) + own)
            self._write(corner, m, pixels, sums)

        def pause() -> None:
            for i in range(sums.count):
                store(self.stage, place + i * lanes, sums.get(i), lanes)

        for i in range(sums.count):
            sums.set(i, splat(0.0, lanes))
        self._multiply(T.bind(kernel.x.at(*corner)), pixels, sums, T.bind(number * kernel.row_blocks + m))
        if kernel.passes == 1:
            finish()
        else:
            with T.If(number > 0), T.Then():
                add_staged()
            _either(number == kernel.passes - 1, finish, pause)

    def _multiply(self, base: Any, pixels: list[tuple[int, int]], sums: Any, entry: Any) -> None:
        """Add the blocks of one entry of `pointer`."""
        kernel, lanes, rows = self.kernel, self.lanes, self.kernel.rows
        following = held_here(AHEAD, "int32")
        for ahead in range(AHEAD):
            store(following, ahead, self.index[self.pointer[entry] + ahead], 1)
        with span(self.pointer[entry], self.pointer[entry + 1]) as p:
            weights = [T.bind(load(self.values, p * rows + v, lanes)) for v in range(0, rows, lanes)]
            prefetch(self.values, p * rows + PREFETCHED // 4)
            # Loaded two blocks ahead: else every block waits for its index, at a fifth of the speed.
            source = T.bind(_positive(base + following[0], self.isa))
            for ahead in range(1, AHEAD):
                store(following, ahead - 1, following[ahead], 1)
            store(following, AHEAD - 1, self.index[p + AHEAD], 1)
            for i, (dy, dx) in enumerate(pixels):
                at = source + dy * kernel.x.strides[1] + dx * kernel.x.strides[2]
                element = T.bind(self.x[at]) if self.vectors > 1 else self.x[at]
                for v, weight in enumerate(weights):
                    own = i * self.vectors + v
                    sums.set(own, sums.get(own) + T.Broadcast(element, lanes) * weight)

    def _write(self, corner: tuple[Any, Any, Any], m: Any, pixels: list[tuple[int, int]], sums: Any) -> None:
        """Epilogue and stores."""

        def write(count: int) -> None:
            for start, width in pieces(count, self.lanes):
                self._write_piece(corner, m * self.kernel.rows + start, start, width, pixels, sums)

        self.kernel.for_row(m, write)

    def _write_piece(
        self, corner: tuple[Any, Any, Any], channel: Any, start: int, width: int, pixels: list[tuple[int, int]],
        sums: Any,
    ) -> None:  # fmt: skip
        kernel, (n, py, px) = self.kernel, corner
        for i, (dy, dx) in enumerate(pixels):
            inputs = [T.bind(sums.part(i * self.vectors + start // self.lanes, start % self.lanes, width))]
            for access, buffer in zip(kernel.operands, self.operands, strict=True):
                assert access.strides[3] in (0, 1)
                inputs.append(T.bind(load(buffer, access.at(n, py + dy, px + dx, channel), width, access.strides[3])))
            at = kernel.y.at(n, py + dy, px + dx) + channel
            store(self.y, at, emit(kernel.epilogue, inputs, width), width)


def _positive(position: Any, isa: Isa) -> Any:
    """The position; on WebAssembly so that LLVM sees that it is not negative.

    Only then do the distances of the pixels become offsets of the loads, instead of an addition each.
    """
    return T.bitwise_and(position, T.int32(0x7FFFFFFF)) if isa.loads_ahead else position


def _either(condition: Any, yes: Callable[[], None], no: Callable[[], None]) -> None:
    with T.If(condition):
        with T.Then():
            yes()
        with T.Else():
            no()
