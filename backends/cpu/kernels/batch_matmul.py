"""Products of two computed matrices: Y[b, i, j] = epilogue(Σ_k A[b, i, k] · B[b, k, j]); vectors run along j."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, ceil_div, held_here, load, pieces, splat, store


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
                sums = [[held_here(wide, self.a.dtype) for _, wide in vectors] for _ in range(high)]
                for i in range(high):
                    for held, (_, wide) in zip(sums[i], vectors, strict=True):
                        store(held, 0, splat(0.0, wide), wide)
                with T.serial(0, self.depth) as k:
                    right = [T.bind(load(b, self.b.at(*outer, k, j0 + start), wide)) for start, wide in vectors]
                    for i in range(high):
                        left = T.bind(a[self.a.at(*outer, i0 + i, k)])
                        for (_, wide), column, held in zip(vectors, right, sums[i], strict=True):
                            factor = left if wide == 1 else T.Broadcast(left, wide)
                            store(held, 0, load(held, 0, wide) + factor * column, wide)
                for i in range(high):
                    for (start, wide), held in zip(vectors, sums[i], strict=True):
                        where = (*outer, i0 + i, j0 + start)
                        inputs = [T.bind(load(held, 0, wide))]
                        for access, buffer in zip(self.operands, operands, strict=True):
                            inputs.append(T.bind(load(buffer, access.at(*where), wide, access.strides[-1])))
                        store(y, self.y.at(*where), emit(self.epilogue, inputs, wide), wide)
