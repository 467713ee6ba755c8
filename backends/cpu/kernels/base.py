"""What every kernel is: a frozen description that knows its arguments and can write itself as a TensorIR function.

The description holds shapes, strides and tile sizes, never weights: two layers alike share one compiled function.
Buffers are one-dimensional; where a kernel reads and writes is an `Access`: an offset and one stride for each of its
loops. So one kernel serves every layout, border and view.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa


@dataclass(frozen=True)
class Access:
    """`size` elements of `dtype`; element (i, j, …) of the loops lies at offset + Σ strides · (i, j, …)."""

    size: int
    offset: int
    strides: tuple[int, ...]
    dtype: str = "float32"

    def at(self, *indices: Any) -> Any:
        """The position as an index expression."""
        position: Any = self.offset
        for stride, index in zip(self.strides, indices, strict=True):
            if stride:
                position = position + index * stride
        return position


@dataclass(frozen=True)
class Argument:
    """One buffer of a kernel."""

    name: str
    dtype: str
    size: int


class Kernel(ABC):
    """The base of the descriptions; subclasses are frozen dataclasses."""

    family: ClassVar[str]

    @abstractmethod
    def arguments(self) -> tuple[Argument, ...]:
        """Its buffers in order, the written one last."""

    @abstractmethod
    def emit(self, isa: Isa, *buffers: Any) -> None:
        """Write the body with the current IR builder."""

    def overwritable(self) -> tuple[int, ...]:
        """Arguments that may be the written buffer: each element is read right before it is written, never again."""
        return ()

    def symbol(self) -> str:
        """A name that is the same for equal kernels, and for equal kernels only."""
        return f"{self.family}_{hashlib.sha256(repr(self).encode()).hexdigest()[:16]}"


def prim_func(kernel: Kernel, isa: Isa) -> Any:
    """The TensorIR function of a kernel."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name(kernel.symbol())
        T.func_attr({"global_symbol": kernel.symbol(), "tirx.noalias": True})
        # No more than the alignment of an element is promised: users' arrays are read and written in place.
        buffers = [T.arg(a.name, T.buffer((a.size,), a.dtype, align=_BYTES[a.dtype])) for a in kernel.arguments()]
        kernel.emit(isa, *buffers)
    return builder.get()


_BYTES = {"float32": 4, "int32": 4, "int64": 8, "uint8": 1, "int8": 1}


def load(buffer: Any, position: Any, lanes: int, stride: int = 1) -> Any:
    """A scalar, a broadcast scalar (stride 0) or a vector of `lanes` elements."""
    if lanes == 1:
        return buffer[position]
    if stride == 0:
        return T.Broadcast(buffer[position], lanes)
    return buffer[T.Ramp(position, stride, lanes)]


def store(buffer: Any, position: Any, value: Any, lanes: int, stride: int = 1) -> None:
    T.buffer_store(buffer, value, [position if lanes == 1 else T.Ramp(position, stride, lanes)])


def splat(value: float, lanes: int, dtype: str = "float32") -> Any:
    """A constant in every lane."""
    scalar = getattr(T, dtype)(value)
    return scalar if lanes == 1 else T.Broadcast(scalar, lanes)


def pieces(count: int, lanes: int) -> Iterator[tuple[int, int]]:
    """Start and width of the vectors that cover `count` elements exactly: full ones, then halves of halves."""
    start, width = 0, lanes
    while start < count:
        while width > count - start:
            width //= 2
        yield start, width
        start += width


@contextmanager
def span(start: Any, stop: Any) -> Iterator[Any]:
    """A serial loop from `start` to `stop`. TVM 0.27 mistakes values read inside a loop whose own start varies."""
    first = T.bind(start) if not isinstance(start, int) else start
    with T.serial(0, stop - first) as step:
        yield T.bind(first + step)


def ceil_div(count: int, size: int) -> int:
    return -(-count // size)


def tiles(vectors: int, most: int) -> Iterator[tuple[int, int, int]]:
    """First vector, number and size of tiles alike, which together are `vectors`: of two sizes at most, one apart."""
    count = ceil_div(vectors, most)
    small, large = divmod(vectors, count)
    if large:
        yield 0, large, small + 1
    if count > large:
        yield large * (small + 1), count - large, small


def whole_or_rest(number: Any, channels: int, lanes: int, write: Callable[[int], None]) -> None:
    """`write` vector `number` of channels: all its lanes, or those of them that the last vector has."""
    full, rest = divmod(channels, lanes)
    if not rest or not full:
        write(rest or lanes)
        return
    with T.If(number < full):
        with T.Then():
            write(lanes)
        with T.Else():
            write(rest)


def prefetch(buffer: Any, position: Any) -> None:
    """Ask for an element, which may lie beyond the end, before it is needed."""
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(buffer[position]), *map(T.int32, (0, 3, 1))))


def held_here(size: int, dtype: str) -> Any:
    """A few numbers on the stack, or in registers where all indices are constant.

    TVM 0.27 takes them from the heap if they are 1 KiB or more, or in any other scope than the global one.
    """
    return T.alloc_buffer((size,), dtype, scope="global")


class Sums:
    """Vectors that stay in registers: a buffer of its own for each, which LLVM can take apart."""

    def __init__(self, count: int, lanes: int, dtype: str = "float32") -> None:
        self.count, self.lanes = count, lanes
        self._held = [held_here(lanes, dtype) for _ in range(count)]

    def get(self, number: int) -> Any:
        return load(self._held[number], 0, self.lanes)

    def part(self, number: int, start: int, width: int) -> Any:
        """`width` of the lanes of one vector."""
        return load(self._held[number], start, width)

    def set(self, number: int, value: Any) -> None:
        store(self._held[number], 0, value, self.lanes)
