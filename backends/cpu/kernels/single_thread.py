"""For machines without threads and without a heap: loops one after the other, and how much memory a kernel asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tvm import tirx

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Kernel, prim_func

ALIGNMENT = 64


def in_turn(statement: Any) -> Any:
    """The statement with its parallel loops as serial ones. Kernels have them outermost, so little is rebuilt."""
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt([in_turn(each) for each in statement.seq])
    if not isinstance(statement, tirx.For):
        return statement
    body = in_turn(statement.body)
    return tirx.For(statement.loop_var, statement.min, statement.extent, tirx.ForKind.SERIAL, body)


def workspace_bytes(kernel: Kernel, isa: Isa) -> int:
    """The most that a kernel holds at once of what it asks the run time for: all its own buffers together."""
    sizes = (
        int(np.prod([int(n) for n in each.buffer.shape])) * np.dtype(str(each.buffer.dtype)).itemsize
        for each in _allocations(prim_func(kernel, isa).body)
    )
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def _allocations(statement: Any) -> Iterator[Any]:
    if isinstance(statement, tirx.stmt.AllocBuffer):
        yield statement
    inner = list(statement.seq) if isinstance(statement, tirx.SeqStmt) else []
    inner += [getattr(statement, name, None) for name in ("body", "then_case", "else_case")]
    for each in inner:
        if each is not None:
            yield from _allocations(each)
