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

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, ceil_div, load, pieces, span, store


@dataclass(frozen=True)
class ChannelMajor(Kernel):
    """`grid`: batch, height, width of the output. `x` has those strides, `y` and the operands also one for the channel.

    `tile`: pixels of one row that stay in registers, with `rows` sums each. Jobs are (batch, line, part of the rows of
    blocks): `groups` parts.
    """

    family: ClassVar[str] = "channel_major"

    grid: tuple[int, int, int]
    channels: int
    rows: int
    columns: int
    x: Access
    y: Access
    epilogue: Expression
    operands: tuple[Access, ...] = ()
    tile: int = 16
    groups: int = 1

    @property
    def row_blocks(self) -> int:
        return ceil_div(self.channels, self.rows)

    def arguments(self) -> tuple[Argument, ...]:
        blocks = self.row_blocks * self.columns
        return (
            Argument("x", self.x.dtype, self.x.size),
            Argument("values", self.x.dtype, blocks * self.rows),
            Argument("index", "int32", blocks),
            Argument("pointer", "int32", self.row_blocks + 1),
            Argument("bias", self.x.dtype, self.row_blocks * self.rows),
            *(Argument(f"operand{i}", a.dtype, a.size) for i, a in enumerate(self.operands)),
            Argument("y", self.y.dtype, self.y.size),
        )

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
                    sums = T.alloc_buffer((self.rows * self.tile,), self.x.dtype, scope="local")
                    for o in range(self.rows):
                        for start, wide in vectors:
                            store(sums, o * self.tile + start, load(bias, m * self.rows + o, wide, 0), wide)
                    with span(pointer[m], pointer[m + 1]) as p:
                        source = T.bind(base + index[p])
                        step = self.x.strides[2]
                        inputs = [T.bind(load(x, source + start * step, wide, step)) for start, wide in vectors]
                        for o in range(self.rows):
                            weight = T.bind(values[p * self.rows + o])
                            for (start, wide), pixels in zip(vectors, inputs, strict=True):
                                at = o * self.tile + start
                                factor = weight if wide == 1 else T.Broadcast(weight, wide)
                                store(sums, at, load(sums, at, wide) + pixels * factor, wide)
                    self._write((n, line, px), m, vectors, sums, operands, y)

    def _write(
        self,
        where: tuple[Any, Any, Any],
        m: Any,
        vectors: list[tuple[int, int]],
        sums: Any,
        operands: list[Any],
        y: Any,
    ) -> None:
        """Epilogue and stores; the last row of blocks may have fewer channels."""
        n, line, px = where
        full, rest = divmod(self.channels, self.rows)

        def write(count: int) -> None:
            for o in range(count):
                channel = m * self.rows + o
                for start, wide in vectors:
                    inputs = [T.bind(load(sums, o * self.tile + start, wide))]
                    for access, buffer in zip(self.operands, operands, strict=True):
                        at = access.at(n, line, px + start, channel)
                        inputs.append(T.bind(load(buffer, at, wide, access.strides[2])))
                    value = emit(self.epilogue, inputs, wide)
                    store(y, self.y.at(n, line, px + start, channel), value, wide, self.y.strides[2])

        if not rest or not full:
            write(rest or self.rows)
            return
        with T.If(m < full):
            with T.Then():
                write(self.rows)
            with T.Else():
                write(rest)
