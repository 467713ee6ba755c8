"""Products of two computed matrices: Y[b, i, j] = epilogue(Σ_k A[b, i, k] · B[b, k, j]); vectors run along j."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, ceil_div, load, pieces, splat, store


@dataclass(frozen=True)
class BatchMatMul(Kernel):
    """`batch`: any number of loops. Strides of `a`: batch …, i, k; of `b`: batch …, k, j; of `y`: batch …, i, j.

    Those of the operands are as y's. b and y have stride 1 along j. `tile`: rows × columns in registers.
    """

    family: ClassVar[str] = "batch_matmul"

    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: int
    a: Access
    b: Access
    y: Access
    epilogue: Expression
    operands: tuple[Access, ...] = ()
    tile: tuple[int, int] = (6, 32)

    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument("a", self.a.dtype, self.a.size),
            Argument("b", self.b.dtype, self.b.size),
            *(Argument(f"operand{i}", o.dtype, o.size) for i, o in enumerate(self.operands)),
            Argument("y", self.y.dtype, self.y.size),
        )

    def emit(self, isa: Isa, a: Any, b: Any, *rest: Any) -> None:
        *operands, y = rest
        lanes = isa.lanes(self.a.dtype)
        high, wide_tile = min(self.tile[0], self.rows), min(self.tile[1], self.columns)
        vectors = list(pieces(wide_tile, lanes))
        row_tiles, column_tiles = ceil_div(self.rows, high), ceil_div(self.columns, wide_tile)
        with T.parallel(0, math.prod(self.batch) * row_tiles) as job:
            outer = [
                job // (row_tiles * math.prod(self.batch[place + 1 :])) % extent
                for place, extent in enumerate(self.batch)
            ]
            i0 = T.bind(T.min(job % row_tiles * high, self.rows - high))
            with T.serial(0, column_tiles) as t:
                j0 = T.bind(T.min(t * wide_tile, self.columns - wide_tile))
                sums = T.alloc_buffer((high * wide_tile,), self.a.dtype, scope="local")
                for i in range(high):
                    for start, wide in vectors:
                        store(sums, i * wide_tile + start, splat(0.0, wide), wide)
                with T.serial(0, self.depth) as k:
                    right = [T.bind(load(b, self.b.at(*outer, k, j0 + start), wide)) for start, wide in vectors]
                    for i in range(high):
                        left = T.bind(a[self.a.at(*outer, i0 + i, k)])
                        for (start, wide), column in zip(vectors, right, strict=True):
                            at = i * wide_tile + start
                            factor = left if wide == 1 else T.Broadcast(left, wide)
                            store(sums, at, load(sums, at, wide) + factor * column, wide)
                for i in range(high):
                    for start, wide in vectors:
                        where = (*outer, i0 + i, j0 + start)
                        inputs = [T.bind(load(sums, i * wide_tile + start, wide))]
                        for access, buffer in zip(self.operands, operands, strict=True):
                            inputs.append(T.bind(load(buffer, access.at(*where), wide, access.strides[-1])))
                        store(y, self.y.at(*where), emit(self.epilogue, inputs, wide), wide)
