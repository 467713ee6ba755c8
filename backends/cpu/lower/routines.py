"""Steps that routines of the run time do (runtime/routines.c): what depends on indices, and filling memory.

Each says which routine it is (`code`, an enumerator of program.h) and with which numbers it is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

MOST_DEPTH = 6
"""Indices of one element that GatherND and ScatterND can have."""


class Routine(ABC):
    """The base; subclasses are frozen dataclasses."""

    code: ClassVar[str]

    @abstractmethod
    def values(self) -> tuple[int, ...]:
        """At most twelve numbers, in the order of program.h."""


@dataclass(frozen=True)
class ZeroBorder(Routine):
    """Write zeros around an image: `planes` of `rows` × `columns` pixels of `pixel` elements, border as in Tensor."""

    code: ClassVar[str] = "CALL_BORDER"

    planes: int
    rows: int
    columns: int
    pixel: int
    border: tuple[int, int, int, int]

    def values(self) -> tuple[int, ...]:
        return self.planes, self.rows, self.columns, self.pixel * 4, *self.border


@dataclass(frozen=True)
class Fill(Routine):
    """Write zeros everywhere."""

    code: ClassVar[str] = "CALL_FILL"

    def values(self) -> tuple[int, ...]:
        return (0,)


@dataclass(frozen=True)
class Gather(Routine):
    """Y[o, i] = table[o, index[i]], `inner` bytes each; an index outside −length … length − 1 is an error in `run`."""

    code: ClassVar[str] = "CALL_GATHER"

    outer: int
    length: int
    count: int
    inner: int
    is_int64: bool

    def values(self) -> tuple[int, ...]:
        return self.outer, self.length, self.count, self.inner, int(self.is_int64)


@dataclass(frozen=True)
class GatherRows(Routine):
    """Y[o, i] = x[o, index[o, i]], elements of `size` bytes; `length` and `count` are those of x and of index."""

    code: ClassVar[str] = "CALL_GATHER_ROWS"

    outer: int
    length: int
    count: int
    size: int
    is_int64: bool

    def values(self) -> tuple[int, ...]:
        return self.outer, self.length, self.count, self.size, int(self.is_int64)


@dataclass(frozen=True)
class GatherND(Routine):
    """Y[b, i] = table[b, index[b, i, 0], …], `inner` bytes each; `lengths`: those axes of the table."""

    code: ClassVar[str] = "CALL_GATHER_ND"

    outer: int
    count: int
    inner: int
    is_int64: bool
    lengths: tuple[int, ...]

    def values(self) -> tuple[int, ...]:
        return self.outer, self.count, len(self.lengths), self.inner, int(self.is_int64), *self.lengths


JOINS = ("none", "add", "mul", "max", "min")
"""How scattered elements meet what is there; in the order of program.h. All but the first for float32 only."""


@dataclass(frozen=True)
class ScatterND(Routine):
    """Y[index[i, 0], …] joined with updates[i], `inner` elements of `size` bytes; Y holds something already."""

    code: ClassVar[str] = "CALL_SCATTER_ND"

    count: int
    inner: int
    size: int
    is_int64: bool
    join: int
    lengths: tuple[int, ...]

    def values(self) -> tuple[int, ...]:
        return self.count, len(self.lengths), self.inner, self.size, int(self.is_int64), self.join, *self.lengths


@dataclass(frozen=True)
class ScatterRows(Routine):
    """Y[o, index[o, i]] joined with updates[o, i]; Y holds something already."""

    code: ClassVar[str] = "CALL_SCATTER_ROWS"

    outer: int
    length: int
    count: int
    size: int
    is_int64: bool
    join: int

    def values(self) -> tuple[int, ...]:
        return self.outer, self.length, self.count, self.size, int(self.is_int64), self.join


TYPES = {"float32": 0, "int64": 1, "int32": 2, "uint8": 3}


@dataclass(frozen=True)
class ArgExtreme(Routine):
    """Y[o] (int64) = where row o of x is largest or smallest, the first or the last such place."""

    code: ClassVar[str] = "CALL_ARG_EXTREME"

    outer: int
    length: int
    is_max: bool
    is_last: bool
    dtype: str

    def values(self) -> tuple[int, ...]:
        return self.outer, self.length, int(self.is_max), int(self.is_last), TYPES[self.dtype]


@dataclass(frozen=True)
class TopK(Routine):
    """Y[o] (int64) = the places of the `count` largest or smallest elements of row o, in order; of equals the first."""

    code: ClassVar[str] = "CALL_TOP_K"

    outer: int
    length: int
    count: int
    is_max: bool
    dtype: str

    def values(self) -> tuple[int, ...]:
        return self.outer, self.length, self.count, int(self.is_max), TYPES[self.dtype]


@dataclass(frozen=True)
class CumSum(Routine):
    """Running sums of every row, float32 in double."""

    code: ClassVar[str] = "CALL_CUM_SUM"

    outer: int
    length: int
    is_exclusive: bool
    is_reverse: bool
    dtype: str

    def values(self) -> tuple[int, ...]:
        return self.outer, self.length, int(self.is_exclusive), int(self.is_reverse), TYPES[self.dtype]
