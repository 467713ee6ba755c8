"""What both families of block-sparse products share: their description, their buffers and their last row of blocks.

A row of blocks is `rows` output channels; `pointer` says which blocks it has, `index` where each finds its input, and
`values` holds `rows` weights for each. The families differ in the axis that their vectors run along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, ceil_div, whole_or_rest

AHEAD = 2
"""Blocks whose index is loaded while an earlier one is computed."""

PREFETCHED = 1024
"""Bytes ahead of the weights in use: they are read once, from far away, and faster than the processor foresees."""


@dataclass(frozen=True)
class BlockProduct(Kernel):
    """`grid`: batch, height, width of the output. `columns`: most blocks that one row of blocks can have.

    `index` has AHEAD elements more than there are blocks, which are read and not used. The blocks of a row come in
    `passes` parts; `pointer` has the rows of blocks of every pass, one pass after the other.

    `operands` of the epilogue: its inputs 1, 2, …; input 0 is the sum.
    """

    grid: tuple[int, int, int]
    channels: int
    rows: int
    columns: int
    x: Access
    y: Access
    epilogue: Expression
    operands: tuple[Access, ...] = ()
    passes: int = 1

    @property
    def row_blocks(self) -> int:
        return ceil_div(self.channels, self.rows)

    def arguments(self) -> tuple[Argument, ...]:
        blocks = self.row_blocks * self.columns
        return (
            Argument("x", self.x.dtype, self.x.size),
            Argument("values", self.x.dtype, blocks * self.rows),
            Argument("index", "int32", blocks + AHEAD),
            Argument("pointer", "int32", self.row_blocks * self.passes + 1),
            Argument("bias", self.x.dtype, self.row_blocks * self.rows),
            *(Argument(f"operand{i}", a.dtype, a.size) for i, a in enumerate(self.operands)),
            Argument("y", self.y.dtype, self.y.size),
        )

    def for_row(self, m: Any, write: Callable[[int], None]) -> None:
        """`write` for as many channels as row `m` of blocks has: the last one may have fewer."""
        whole_or_rest(m, self.channels, self.rows, write)
