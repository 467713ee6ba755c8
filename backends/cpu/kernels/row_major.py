"""Family A: channels last, blocks of `rows` output channels × 1 input element; vectors run along output channels.

    Y[pixel, m·rows + v] = epilogue(bias[m·rows + v] + Σ_p X[base(pixel) + index[p]] · W[p, v])   p over the blocks of m

One generator serves a convolution of any kernel, stride, dilation and groups over an input with a border (`index` is
the flat offset of kernel position and channel, so nothing is copied), a 1×1 convolution and a matrix product (pixels
are rows). Dense is the same with every block present. X may lie in any layout, channels first too.

A tile of th × tw pixels stays in registers, with rows / lanes vectors each. Where tiles do not divide the grid the last
one overlaps its neighbour: it computes the same numbers again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import ceil_div, load, pieces, span, store
from prunec.backends.cpu.kernels.block_product import AHEAD, BlockProduct


@dataclass(frozen=True)
class RowMajor(BlockProduct):
    """`x` and `y` have the strides of the grid, their channels stride 1; operands have one for grid and channel.

    `chunks` × `groups` jobs run in parallel: `chunks` parts of the pixel tiles, `groups` parts of the rows of blocks;
    within a job the rows of blocks are the outer loop.
    """

    family: ClassVar[str] = "row_major"

    tile: tuple[int, int] = (1, 14)
    chunks: int = 1
    groups: int = 1

    @property
    def tiles(self) -> tuple[int, int, int]:
        """Tiles along batch, height, width."""
        n, h, w = self.grid
        return n, ceil_div(h, self.tile[0]), ceil_div(w, self.tile[1])

    def emit(self, isa: Isa, x: Any, values: Any, index: Any, pointer: Any, bias: Any, *rest: Any) -> None:
        *operands, y = rest
        lanes = min(isa.lanes(self.x.dtype), self.rows)
        assert self.rows % lanes == 0 and self.tile[0] <= self.grid[1] and self.tile[1] <= self.grid[2]
        vectors = self.rows // lanes
        th, tw = self.tile
        pixels = [(dy, dx) for dy in range(th) for dx in range(tw)]
        n_tiles, h_tiles, w_tiles = self.tiles
        all_tiles = n_tiles * h_tiles * w_tiles
        per_chunk, per_group = ceil_div(all_tiles, self.chunks), ceil_div(self.row_blocks, self.groups)

        with T.parallel(0, self.chunks * self.groups) as job:
            chunk, group = job // self.groups, job % self.groups
            first_row, first_tile = group * per_group, chunk * per_chunk
            rows = span(first_row, T.min(first_row + per_group, self.row_blocks))
            with rows as m, span(first_tile, T.min(first_tile + per_chunk, all_tiles)) as t:
                n = t // (h_tiles * w_tiles)
                py = T.bind(T.min(t // w_tiles % h_tiles * th, self.grid[1] - th))
                px = T.bind(T.min(t % w_tiles * tw, self.grid[2] - tw))
                sums = T.alloc_buffer((len(pixels) * self.rows,), self.x.dtype, scope="local")
                for v in range(vectors):
                    start = T.bind(load(bias, m * self.rows + v * lanes, lanes))
                    for i in range(len(pixels)):
                        store(sums, i * self.rows + v * lanes, start, lanes)
                base = T.bind(self.x.at(n, py, px))
                following = T.alloc_buffer((AHEAD,), "int32", scope="local")
                for ahead in range(AHEAD):
                    store(following, ahead, index[pointer[m] + ahead], 1)
                with span(pointer[m], pointer[m + 1]) as p:
                    weights = [T.bind(load(values, p * self.rows + v * lanes, lanes)) for v in range(vectors)]
                    # Loaded two blocks ahead: else every block waits for its index, at a fifth of the speed.
                    source = T.bind(base + following[0])
                    for ahead in range(1, AHEAD):
                        store(following, ahead - 1, following[ahead], 1)
                    store(following, AHEAD - 1, index[p + AHEAD], 1)
                    for i, (dy, dx) in enumerate(pixels):
                        shift = dy * self.x.strides[1] + dx * self.x.strides[2]
                        element = T.bind(x[source + shift]) if vectors > 1 else x[source + shift]
                        for v in range(vectors):
                            at = i * self.rows + v * lanes
                            product = T.Broadcast(element, lanes) * weights[v]
                            store(sums, at, load(sums, at, lanes) + product, lanes)
                self._write(isa, (n, py, px), m, pixels, sums, operands, y)

    def _write(
        self,
        isa: Isa,
        where: tuple[Any, Any, Any],
        m: Any,
        pixels: list[tuple[int, int]],
        sums: Any,
        operands: list[Any],
        y: Any,
    ) -> None:
        """Epilogue and stores."""
        lanes = min(isa.lanes(self.x.dtype), self.rows)

        def write(count: int) -> None:
            for start, width in pieces(count, lanes):
                self._write_piece(where, m * self.rows + start, start, width, pixels, sums, operands, y)

        self.for_row(m, write)

    def _write_piece(
        self,
        where: tuple[Any, Any, Any],
        channel: Any,
        start: int,
        width: int,
        pixels: list[tuple[int, int]],
        sums: Any,
        operands: list[Any],
        y: Any,
    ) -> None:
        n, py, px = where
        for i, (dy, dx) in enumerate(pixels):
            inputs = [T.bind(load(sums, i * self.rows + start, width))]
            for access, buffer in zip(self.operands, operands, strict=True):
                assert access.strides[3] in (0, 1)
                inputs.append(T.bind(load(buffer, access.at(n, py + dy, px + dx, channel), width, access.strides[3])))
            at = self.y.at(n, py + dy, px + dx) + channel
            store(y, at, emit(self.epilogue, inputs, width), width)
