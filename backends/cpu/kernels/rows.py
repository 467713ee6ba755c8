"""Functions of whole rows: softmax, layer normalisation, L2 norm and other reductions; vectors run along the row.

softmax     exp(x − max x) / Σ exp(x − max x)
layer_norm  (x − mean) / √(variance + ε) · scale + shift      variance as mean of squared differences, in two sweeps
reductions  one number per row: sum, mean, max, min, l1, l2, sum of squares, product
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.arithmetic import exp
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, held_here, load, pieces, splat, store

LOWEST = -3.4028234663852886e38
WAYS, LONG = 4, 4
"""Vectors that add up at once, and from how many each."""
ONE_SUM = 64
"""Numbers that are added one after the other, of more parts are summed first: the mean of an image of 120 × 120 was off
by 3e-6 of its range, and a gate multiplies whole channels by what comes of that."""
Reduction = Literal["sum", "mean", "max", "min", "l1", "l2", "sum_square", "prod"]


def reduced(
    isa: Isa, length: int, first: float, value: Callable[[Any, int], Any], join: Callable[[Any, Any], Any]
) -> Any:
    """A scalar: `join` over value(position, lanes) of all positions, in vector lanes first, of `WAYS` vectors if long.

    Several sums do not wait for each other, and round less than one.
    """
    lanes = isa.lanes("float32")
    whole, tail = divmod(length, lanes)
    ways = WAYS if whole >= LONG * WAYS else 1
    total = held_here(1, "float32")
    T.buffer_store(total, T.float32(first), [0])
    if whole:
        sums = [held_here(lanes, "float32") for _ in range(ways)]
        for own in sums:
            store(own, 0, splat(first, lanes), lanes)

        def add(own: Any, place: Any) -> None:
            store(own, 0, join(load(own, 0, lanes), value(place * lanes, lanes)), lanes)

        with T.serial(0, whole // ways) as i:
            for way, own in enumerate(sums):
                add(own, i * ways + way)
        for way in range(whole % ways):
            add(sums[way], whole - whole % ways + way)
        for lane in range(lanes):
            for own in sums:
                T.buffer_store(total, join(total[0], own[lane]), [0])
    if tail:
        with T.serial(0, tail) as i:
            T.buffer_store(total, join(total[0], value(whole * lanes + i, 1)), [0])
    return T.bind(total[0])


def swept(isa: Isa, length: int, write: Callable[[Any, int], None]) -> None:
    """Call `write(position, lanes)` for all positions."""
    lanes = isa.lanes("float32")
    whole, tail = divmod(length, lanes)
    if whole:
        with T.serial(0, whole) as i:
            write(i * lanes, lanes)
    for start, wide in pieces(tail, lanes) if tail else ():
        write(whole * lanes + start, wide)


def spread(scalar: Any, lanes: int) -> Any:
    return scalar if lanes == 1 else T.Broadcast(scalar, lanes)


@dataclass(frozen=True)
class RowKernel(Kernel):
    """`outer`: extents of the loops around the rows; `x` has a stride for each of them and one along the row."""

    outer: tuple[int, ...]
    length: int
    x: Access
    y: Access

    def loops(self, stack: ExitStack) -> list[Any]:
        return [
            stack.enter_context((T.parallel if number == 0 else T.serial)(0, extent))
            for number, extent in enumerate(self.outer)
        ]

    def element(self, x: Any, at: list[Any]) -> Callable[[Any, int], Any]:
        stride = self.x.strides[-1]
        return lambda position, lanes: load(x, self.x.at(*at, position), lanes, stride)


@dataclass(frozen=True)
class Softmax(RowKernel):
    """Both x and y have stride 1 along the row."""

    family: ClassVar[str] = "softmax"

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("x", "float32", self.x.size), Argument("y", "float32", self.y.size))

    def emit(self, isa: Isa, x: Any, y: Any) -> None:
        with ExitStack() as stack:
            at = self.loops(stack)
            value = self.element(x, at)
            top = reduced(isa, self.length, LOWEST, value, T.max)

            def exponential(position: Any, lanes: int) -> None:
                store(y, self.y.at(*at, position), exp(value(position, lanes) - spread(top, lanes), lanes), lanes)

            swept(isa, self.length, exponential)

            def written(position: Any, lanes: int) -> Any:
                return load(y, self.y.at(*at, position), lanes)

            total = reduced(isa, self.length, 0.0, written, operator.add)
            scale = T.bind(T.float32(1) / total)

            def normalise(position: Any, lanes: int) -> None:
                store(y, self.y.at(*at, position), written(position, lanes) * spread(scale, lanes), lanes)

            swept(isa, self.length, normalise)


@dataclass(frozen=True)
class LayerNorm(RowKernel):
    """Arguments scale and shift have `length` elements; all have stride 1 along the row."""

    family: ClassVar[str] = "layer_norm"

    epsilon: float = 1e-5

    def arguments(self) -> tuple[Argument, ...]:
        return (
            Argument("x", "float32", self.x.size),
            Argument("scale", "float32", self.length),
            Argument("shift", "float32", self.length),
            Argument("y", "float32", self.y.size),
        )

    def emit(self, isa: Isa, x: Any, scale: Any, shift: Any, y: Any) -> None:
        with ExitStack() as stack:
            at = self.loops(stack)
            value = self.element(x, at)
            mean = T.bind(reduced(isa, self.length, 0.0, value, operator.add) * T.float32(1 / self.length))

            def squared(position: Any, lanes: int) -> Any:
                difference = T.bind(value(position, lanes) - spread(mean, lanes))
                return difference * difference

            variance = reduced(isa, self.length, 0.0, squared, operator.add) * T.float32(1 / self.length)
            factor = T.bind(T.float32(1) / T.sqrt(variance + T.float32(self.epsilon)))

            def write(position: Any, lanes: int) -> None:
                normal = (value(position, lanes) - spread(mean, lanes)) * spread(factor, lanes)
                result = normal * load(scale, position, lanes) + load(shift, position, lanes)
                store(y, self.y.at(*at, position), result, lanes)

            swept(isa, self.length, write)


@dataclass(frozen=True)
class Reduce(RowKernel):
    """One number per row; `y` has a stride for each outer loop. A row may be strided."""

    family: ClassVar[str] = "reduce"

    kind: Reduction = "sum"

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("x", "float32", self.x.size), Argument("y", "float32", self.y.size))

    def emit(self, isa: Isa, x: Any, y: Any) -> None:
        with ExitStack() as stack:
            at = self.loops(stack)
            value = self.element(x, at)
            first, join = {
                "max": (LOWEST, T.max), "min": (-LOWEST, T.min), "prod": (1.0, operator.mul)
            }.get(self.kind, (0.0, operator.add))  # fmt: skip

            def term(position: Any, lanes: int) -> Any:
                element = T.bind(value(position, lanes))
                if self.kind in ("l2", "sum_square"):
                    return element * element
                if self.kind == "l1":
                    return T.max(element, splat(0.0, lanes) - element)
                return element

            total = reduced(isa, self.length, first, term, join)
            if self.kind == "mean":
                total = total * T.float32(1 / self.length)
            if self.kind == "l2":
                total = T.sqrt(total)
            T.buffer_store(y, total, [self.y.at(*at)])


@dataclass(frozen=True)
class ReduceOuter(Kernel):
    """Reductions over loops around the channels: Y[i, c] = join over r, s of X[i, r, s, c]; vectors run along c.

    Long sums are made of about √(r s) parts, which round less than one.
    `x`: strides of i, r, s, c (1); `y`: of i, c (1).
    """

    family: ClassVar[str] = "reduce_outer"

    outer: int
    reduced: tuple[int, int]
    channels: int
    x: Access
    y: Access
    kind: Reduction = "mean"

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("x", "float32", self.x.size), Argument("y", "float32", self.y.size))

    def emit(self, isa: Isa, x: Any, y: Any) -> None:
        first = {"max": LOWEST, "min": -LOWEST, "prod": 1.0}.get(self.kind, 0.0)
        rows, columns = self.reduced
        turned = rows > 8 * columns  # long lines are easier to divide
        rows, columns = (columns, rows) if turned else (rows, columns)
        is_long = rows * columns > ONE_SUM and self.kind not in ("max", "min", "prod")
        part = min(columns, math.isqrt(rows * columns) + 1) if is_long else columns
        with T.serial(0, self.outer) as i:

            def strip(channel: Any, lanes: int) -> None:
                whole = held_here(lanes, "float32")
                store(whole, 0, splat(first, lanes), lanes)
                own = held_here(lanes, "float32") if is_long else whole

                def add(r: Any, start: Any, count: int) -> None:
                    if is_long:
                        store(own, 0, splat(first, lanes), lanes)
                    with T.serial(0, count) as s:
                        pixel = (start + s, r) if turned else (r, start + s)
                        value = T.bind(load(x, self.x.at(i, *pixel, channel), lanes))
                        store(own, 0, self._joined(load(own, 0, lanes), value, lanes), lanes)
                    if is_long:
                        store(whole, 0, load(whole, 0, lanes) + load(own, 0, lanes), lanes)

                with T.serial(0, rows) as r:
                    with T.serial(0, columns // part) as number:
                        add(r, number * part, part)
                    if columns % part:
                        add(r, columns - columns % part, columns % part)
                total = load(whole, 0, lanes)
                if self.kind == "mean":
                    total = total * splat(1 / (rows * columns), lanes)
                if self.kind == "l2":
                    total = T.sqrt(total)
                store(y, self.y.at(i, channel), total, lanes)

            swept(isa, self.channels, strip)

    def _joined(self, held: Any, value: Any, lanes: int) -> Any:
        if self.kind in ("max", "min"):
            return (T.max if self.kind == "max" else T.min)(held, value)
        if self.kind == "prod":
            return held * value
        if self.kind in ("l2", "sum_square"):
            return held + value * value
        return held + (T.max(value, splat(0.0, lanes) - value) if self.kind == "l1" else value)
