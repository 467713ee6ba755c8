"""Elementwise chains, copies between layouts, broadcasts, transpositions and slices: one nest of loops with strides.

    Y[i, j, …] = expression(X₀[i, j, …], X₁[i, j, …], …)          every buffer with its own offset and strides

A stride of 0 broadcasts. The innermost loop is a vector where Y is dense there.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.expression import Expression
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import emit
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, load, pieces, store

_PARALLEL_ABOVE = 1 << 14
"""Elements below which starting threads costs more than they save."""


@dataclass(frozen=True)
class Pointwise(Kernel):
    """`extents` of the loops, at least one; the last one is the vector."""

    family: ClassVar[str] = "pointwise"

    extents: tuple[int, ...]
    inputs: tuple[Access, ...]
    y: Access
    expression: Expression

    def arguments(self) -> tuple[Argument, ...]:
        return (
            *(Argument(f"x{i}", a.dtype, a.size) for i, a in enumerate(self.inputs)),
            Argument("y", self.y.dtype, self.y.size),
        )

    def emit(self, isa: Isa, *buffers: Any) -> None:
        *inputs, y = buffers
        # TVM 0.27 stumbles over comparisons of integer vectors, which only shapes, masks and token numbers would need.
        is_scalar = self.y.strides[-1] != 1 or not self.expression.dtypes().isdisjoint(("int64", "int32"))
        lanes = 1 if is_scalar else isa.lanes("float32")
        *outer, inner = self.extents
        total = inner
        for extent in outer:
            total *= extent
        is_parallel = bool(outer) and outer[0] > 1 and total >= _PARALLEL_ABOVE

        def write(at: list[Any], wide: int) -> None:
            values = [
                T.bind(load(buffer, access.at(*at), wide, access.strides[-1]))
                for access, buffer in zip(self.inputs, inputs, strict=True)
            ]
            store(y, self.y.at(*at), emit(self.expression, values, wide), wide)

        with ExitStack() as loops:
            at: list[Any] = []
            for number, extent in enumerate(outer):
                kind = T.parallel if number == 0 and is_parallel else T.serial
                at.append(loops.enter_context(kind(0, extent)))
            whole, tail = divmod(inner, lanes)
            if whole:
                with T.serial(0, whole) as i:
                    write([*at, i * lanes], lanes)
            for start, wide in pieces(tail, lanes) if tail else ():
                write([*at, whole * lanes + start], wide)
