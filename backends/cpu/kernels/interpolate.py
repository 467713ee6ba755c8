"""Resampling along two axes: every output is a sum of weighted inputs, positions and weights from tables.

    Y[…, i, j, c] = Σ_(r,q) rows.weight[i, r] · columns.weight[j, q] · X[… + rows.at[i, r] + columns.at[j, q] + c]

Nearest neighbours, linear and cubic interpolation and every convention about coordinates are tables. Vectors run along
c.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, load, store
from prunec.backends.cpu.kernels.rows import spread, swept


@dataclass(frozen=True)
class Interpolate(Kernel):
    """`outer`: loops around; `x` has their strides, `y` theirs and two for i and j; both have stride 1 along c.

    `taps`: how many inputs a row and a column of the result take; `at` holds offsets in elements (int32).
    """

    family: ClassVar[str] = "interpolate"

    outer: tuple[int, ...]
    size: tuple[int, int]
    taps: tuple[int, int]
    channels: int
    x: Access
    y: Access

    def arguments(self) -> tuple[Argument, ...]:
        (rows, columns), (down, right) = self.size, self.taps
        return (
            Argument("x", "float32", self.x.size),
            Argument("row_at", "int32", rows * down),
            Argument("row_weight", "float32", rows * down),
            Argument("column_at", "int32", columns * right),
            Argument("column_weight", "float32", columns * right),
            Argument("y", "float32", self.y.size),
        )

    def emit(self, isa: Isa, x: Any, row_at: Any, row_weight: Any, column_at: Any, column_weight: Any, y: Any) -> None:
        with ExitStack() as stack:
            extents = (*self.outer, *self.size)
            first = next((place for place, extent in enumerate(extents) if extent > 1), 0)
            *at, i, j = [
                stack.enter_context((T.parallel if place == first else T.serial)(0, extent))
                for place, extent in enumerate(extents)
            ]
            base = T.bind(self.x.at(*at)) if self.outer else self.x.offset
            taps = []
            for r in range(self.taps[0]):
                for q in range(self.taps[1]):
                    row, column = i * self.taps[0] + r, j * self.taps[1] + q
                    weight = T.bind(row_weight[row] * column_weight[column])
                    taps.append((T.bind(base + row_at[row] + column_at[column]), weight))

            def write(channel: Any, lanes: int) -> None:
                total: Any = None
                for position, weight in taps:
                    term = load(x, position + channel, lanes) * spread(weight, lanes)
                    total = term if total is None else total + term
                store(y, self.y.at(*at, i, j) + channel, total, lanes)

            swept(isa, self.channels, write)
