"""Family B: channels first, blocks of `rows` output channels × 1 input element; vectors run along the pixels.

    Y[m·rows + o, pixel] = epilogue(bias[m·rows + o] + Σ_p X[base(pixel) + index[p]] · W[p, o])   p over the blocks of m

The weights of a block are broadcast, so blocks may be as fine as 1×1 and the same mask serves every vector width. As in
family A `index` is the flat offset of kernel position and channel in an input with a border, dense is every block
present, and a tile that does not divide the width overlaps its neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import ceil_div, held_here, load, pieces, span, store
from prunec.backends.cpu.kernels.block_product import BlockProduct


@dataclass(frozen=True)
class ChannelMajor(BlockProduct):
    """`x` has the strides of the grid, `y` and the operands also one for the channel.

    `tile`: pixels of one row that stay in registers, with `rows` sums each. Jobs are (batch, line, part of the rows of
    blocks): `groups` parts.
    """

    family: ClassVar[str] = "channel_major"

    tile: int = 16
    groups: int = 1

    def emit(self, isa: Isa, x: Any, values: Any, index: Any, pointer: Any, bias: Any, *rest: Any) -> None:
        *operands, y = rest
        batch, height, width = self.grid
        assert self.tile <= width
        lanes = isa.lanes(self.x.dtype)
        vectors = list(pieces(self.tile, lanes))
        per_group, tiles = ceil_div(self.row_blocks, self.groups), ceil_div(width, self.tile)

        with T.parallel(0, batch * height * self.groups) as job:
            n, line = job // (height * self.groups), job // self.groups % height
            first = job % self.groups * per_group
            with T.serial(0, tiles) as t:
                px = T.bind(T.min(t * self.tile, width - self.tile))
                base = T.bind(self.x.at(n, line, px))
                with span(first, T.min(first + per_group, self.row_blocks)) as m:
                    sums = [[held_here(wide, self.x.dtype) for _, wide in vectors] for _ in range(self.rows)]
                    for o in range(self.rows):
                        for held, (_, wide) in zip(sums[o], vectors, strict=True):
                            store(held, 0, load(bias, m * self.rows + o, wide, 0), wide)
                    with span(pointer[m], pointer[m + 1]) as p:
                        source = T.bind(base + index[p])
                        step = self.x.strides[2]
                        inputs = [T.bind(load(x, source + start * step, wide, step)) for start, wide in vectors]
                        for o in range(self.rows):
                            weight = T.bind(values[p * self.rows + o])
                            for (_, wide), pixels, held in zip(vectors, inputs, sums[o], strict=True):
                                factor = weight if wide == 1 else T.Broadcast(weight, wide)
                                store(held, 0, load(held, 0, wide) + pixels * factor, wide)
                    self._write((n, line, px), m, vectors, sums, operands, y)

    def _write(
        self,
        where: tuple[Any, Any, Any],
        m: Any,
        vectors: list[tuple[int, int]],
        sums: list[list[Any]],
        operands: list[Any],
        y: Any,
    ) -> None:
        """Epilogue and stores."""
        n, line, px = where

        def write(count: int) -> None:
            for o in range(count):
                channel = m * self.rows + o
                for (start, wide), held in zip(vectors, sums[o], strict=True):
                    inputs = [T.bind(load(held, 0, wide))]
                    for access, buffer in zip(self.operands, operands, strict=True):
                        at = access.at(n, line, px + start, channel)
                        inputs.append(T.bind(load(buffer, at, wide, access.strides[2])))
                    value = emit(self.epilogue, inputs, wide)
                    store(y, self.y.at(n, line, px + start, channel), value, wide, self.y.strides[2])

        self.for_row(m, write)
