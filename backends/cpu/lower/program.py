"""The lowered program: buffers, tensors that lie in them, and steps in the order in which they run.

A tensor is a view: a buffer, an offset and one stride per axis, in elements. Layouts are nothing else than strides, so
channels last, borders, transpositions, slices and heads of attention need no copies and no cases in the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from prunec.backends.cpu.kernels.base import Access, Kernel
from prunec.backends.cpu.lower.routines import Routine

BYTES = {"float32": 4, "int32": 4, "int64": 8, "uint8": 1, "int8": 1}
Place = Literal["arena", "weights", "input", "output"]


@dataclass(eq=False)
class Buffer:
    """`elements` of `dtype`. `data` are the contents of weights; `number` counts inputs and outputs."""

    place: Place
    dtype: str
    elements: int
    data: np.ndarray | None = None
    number: int = 0

    @property
    def bytes(self) -> int:
        return self.elements * BYTES[self.dtype]


@dataclass(frozen=True, eq=False)
class Tensor:
    """Element (i, j, …) lies at offset + Σ strides · (i, j, …). `border`: zeros that lie around the two last axes.

    (top, left, bottom, right); such a tensor has rank 4 and is stored with its channels last.
    """

    shape: tuple[int, ...]
    dtype: str
    buffer: Buffer
    offset: int
    strides: tuple[int, ...]
    border: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def access(self, axes: Sequence[int | None]) -> Access:
        """How loops over these axes reach it; None is a loop that it does not know (stride 0)."""
        strides = tuple(0 if axis is None or self.shape[axis] == 1 else self.strides[axis] for axis in axes)
        return Access(self.buffer.elements, self.offset, strides, self.dtype)

    def view(self, shape: Sequence[int], strides: Sequence[int], offset: int | None = None) -> Tensor:
        """Other axes over the same buffer."""
        start = self.offset if offset is None else offset
        return Tensor(tuple(shape), self.dtype, self.buffer, start, tuple(strides))

    def is_plain(self) -> bool:
        """Whether it is dense, in row-major order, from the start of its buffer."""
        return self.offset == 0 and self.has_order(plain_strides(self.shape)) and self.size == self.buffer.elements

    def has_order(self, strides: Sequence[int]) -> bool:
        """Whether it has these strides wherever they matter."""
        return all(a == b or n == 1 for a, b, n in zip(self.strides, strides, self.shape, strict=True))


def plain_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True)
class Step:
    """One call: a generated kernel or a routine of the run time, and its buffers, the written one last."""

    call: Kernel | Routine
    buffers: tuple[Buffer, ...]
    nodes: tuple[str, ...] = ()


@dataclass
class Program:
    """A whole model, or a part of one. `inputs` and `outputs` by name, in the order of the graph, all plain.

    `in_float`: quantised layers that compute in float32, with the reason.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    in_float: dict[str, str] = field(default_factory=dict)

    def kernels(self) -> list[Kernel]:
        """The different kernels, in order of first use."""
        found = {step.call.symbol(): step.call for step in self.steps if isinstance(step.call, Kernel)}
        return list(found.values())
