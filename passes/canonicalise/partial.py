"""Integer vectors that are known in part: the result of `Shape` on a tensor with dynamic axes, and what is made of it.

A partial value is a scalar or a 1-D tuple of entries; an entry is a number or a symbol (symbols.py). Each rule
returns None when it has nothing to say. A rule may return all numbers, e.g. for `Equal(shape, -1)`: then the value is a
constant after all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.arithmetic import axes_of, slice_arguments, slices
from prunec.passes.canonicalise.symbols import Dim, Symbols
from prunec.passes.canonicalise.tools import attribute_int

MAX_ENTRIES = 64
Entry = int | float | bool | str


@dataclass(frozen=True)
class Partial:
    """`entries` of a 1-D value, or the single entry of a scalar."""

    entries: tuple[Entry, ...]
    is_scalar: bool = False

    @property
    def is_known(self) -> bool:
        return not any(isinstance(entry, str) for entry in self.entries)

    def array(self, dtype: np.dtype) -> np.ndarray:
        array = np.array(self.entries, dtype)
        return array.reshape(()) if self.is_scalar else array


Partials = Sequence[Partial | None]


def from_array(array: np.ndarray) -> Partial | None:
    if array.ndim > 1 or array.size > MAX_ENTRIES or array.dtype.kind not in "iufb":
        return None
    return Partial(tuple(array.reshape(-1).tolist()), array.ndim == 0)


def evaluate(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    """The partial value of the node's only output."""
    row = _TABLE.get(node.op_type)
    if row is None:
        return None
    result = row(node, inputs, symbols)
    return None if result is None or len(result.entries) > MAX_ENTRIES else result


def _known(value: Partial | None) -> np.ndarray | None:
    return np.array(value.entries) if value is not None and value.is_known else None


def _gather(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    data, index = inputs[0], inputs[1]
    if data is None or data.is_scalar or index is None or not index.is_known or attribute_int(node, "axis", 0):
        return None
    size = len(data.entries)
    if not all(-size <= int(i) < size for i in index.entries):
        return None
    return Partial(tuple(data.entries[int(i)] for i in index.entries), index.is_scalar)


def _slice(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    data = inputs[0]
    (starts, ends, axes, steps), given = slice_arguments(node, [_known(value) for value in inputs])
    if data is None or data.is_scalar or starts is None or ends is None:
        return None
    if (given > 2 and axes is None and _given(inputs, 3)) or (given > 3 and steps is None and _given(inputs, 4)):
        return None
    return Partial(data.entries[slices(1, starts, ends, axes, steps)[0]])


def _given(inputs: Partials, index: int) -> bool:
    return index < len(inputs) and inputs[index] is not None


def _concat(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    entries: list[Entry] = []
    for value in inputs:
        if value is None or value.is_scalar:
            return None
        entries += value.entries
    return Partial(tuple(entries))


def _unsqueeze(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    data, axes = inputs[0], axes_of(node, [_known(value) for value in inputs])
    return Partial(data.entries) if data is not None and data.is_scalar and axes in ([0], [-1]) else None


def _squeeze(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    data = inputs[0]
    if data is None or data.is_scalar or len(data.entries) != 1:
        return None
    return Partial(data.entries, True)


def _reshape(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    data, shape = inputs[0], inputs[1]
    if data is None or shape is None or not shape.is_known or len(shape.entries) > 1:
        return None
    return Partial(data.entries, not shape.entries) if shape.entries or len(data.entries) == 1 else None


def _cast(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    data = inputs[0]
    kind = ir.DataType(attribute_int(node, "to", 0)).numpy().kind
    if data is None or kind not in "iuf":
        return None
    if not all(isinstance(entry, str) or math.isfinite(entry) for entry in data.entries):
        return None
    return Partial(tuple(_cast_entry(entry, kind, symbols) for entry in data.entries), data.is_scalar)


def _cast_entry(entry: Entry, kind: str, symbols: Symbols) -> Entry:
    if not isinstance(entry, str):
        return float(entry) if kind == "f" else int(entry)
    if kind == "f" or symbols.is_integral(entry):
        return entry
    return symbols.derived("int", entry, signed=not symbols.is_non_negative(entry))


Scalar = Callable[[Entry, Entry, Symbols], Entry | None]


def _elementwise(function: Scalar) -> Callable[[ir.Node, Partials, Symbols], Partial | None]:
    def row(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
        if len(inputs) != 2 or inputs[0] is None or inputs[1] is None:
            return None
        left, right = _broadcast([inputs[0], inputs[1]])
        if len(left) != len(right):
            return None
        entries = [function(a, b, symbols) for a, b in zip(left, right, strict=True)]
        if any(entry is None for entry in entries):
            return None
        return Partial(tuple(e for e in entries if e is not None), inputs[0].is_scalar and inputs[1].is_scalar)

    return row


def _broadcast(values: Sequence[Partial]) -> list[tuple[Entry, ...]]:
    size = max(len(value.entries) for value in values)
    return [value.entries * size if len(value.entries) == 1 else value.entries for value in values]


def _exact(result: float, in_float32: float) -> Entry | None:
    """An int as it is; a float only where its precision does not matter."""
    return result if isinstance(result, int) or result == in_float32 else None


def _mul(a: Entry, b: Entry, symbols: Symbols) -> Entry | None:
    if isinstance(a, int | str) and isinstance(b, int | str):
        return symbols.product([a, b])
    for number, other in ((a, b), (b, a)):
        if isinstance(number, float) and number == 1.0:
            return other
    if not isinstance(a, str) and not isinstance(b, str):
        return _exact(a * b, float(np.float32(a) * np.float32(b)))
    return symbols.derived("*", a, b, signed=False, fractional=True)


def _add(a: Entry, b: Entry, symbols: Symbols) -> Entry | None:
    if not isinstance(a, str) and not isinstance(b, str):
        return _exact(a + b, float(np.float32(a) + np.float32(b)))
    if a == 0 or b == 0:
        return b if a == 0 else a
    return symbols.derived("+", *sorted((a, b), key=str), signed=False)


def _sub(a: Entry, b: Entry, symbols: Symbols) -> Entry | None:
    if not isinstance(a, str) and not isinstance(b, str):
        return _exact(a - b, float(np.float32(a) - np.float32(b)))
    if a == b:
        return 0
    return a if b == 0 else symbols.derived("-", a, b)


def _div(a: Entry, b: Entry, symbols: Symbols) -> Entry | None:
    if not isinstance(a, str) and not isinstance(b, str):
        return None
    if b == 1:
        return a
    if isinstance(a, int | str) and isinstance(b, int | str):
        exact = symbols.quotient(a, b)
        if exact is not None:
            return exact
    return symbols.derived("/", a, b, signed=False, fractional=True)


def _equal(a: Entry, b: Entry, symbols: Symbols) -> Entry | None:
    if not isinstance(a, str) and not isinstance(b, str):
        return a == b
    if a == b:
        return True
    number, symbol = (b, a) if isinstance(a, str) else (a, b)
    if isinstance(number, str) or number >= 0 or not symbols.is_non_negative(symbol):
        return None
    return False


def _where(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    condition, yes, no = inputs
    if condition is None or yes is None or no is None or not condition.is_known:
        return None
    flags, left, right = _broadcast([condition, yes, no])
    if not len(flags) == len(left) == len(right):
        return None
    entries = tuple(a if flag else b for flag, a, b in zip(flags, left, right, strict=True))
    return Partial(entries, all(value.is_scalar for value in (condition, yes, no)))


def _identity(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    return inputs[0]


def _reduce_prod(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
    data = inputs[0]
    if data is None or data.is_scalar or not all(isinstance(entry, int | str) for entry in data.entries):
        return None
    dims: list[Dim] = [entry for entry in data.entries if isinstance(entry, int | str)]
    return Partial((symbols.product(dims),), not attribute_int(node, "keepdims", 1))


def _rounding(name: str) -> Callable[[ir.Node, Partials, Symbols], Partial | None]:
    def row(node: ir.Node, inputs: Partials, symbols: Symbols) -> Partial | None:
        data = inputs[0]
        if data is None or not all(isinstance(entry, str) and symbols.is_integral(entry) for entry in data.entries):
            return None
        return data

    return row


_TABLE: dict[str, Callable[[ir.Node, Partials, Symbols], Partial | None]] = {
    "Gather": _gather, "Slice": _slice, "Concat": _concat, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze,
    "Reshape": _reshape, "Cast": _cast, "Identity": _identity, "Where": _where, "ReduceProd": _reduce_prod,
    "Add": _elementwise(_add), "Sub": _elementwise(_sub), "Mul": _elementwise(_mul), "Div": _elementwise(_div),
    "Equal": _elementwise(_equal), "Floor": _rounding("Floor"), "Ceil": _rounding("Ceil"),
}  # fmt: skip

OPERATORS = frozenset(_TABLE)
