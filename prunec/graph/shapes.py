"""Static shapes, and how a reshape regroups the axes of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

Dim = int | str | None
"""A static length, the name of a symbolic one, or unknown."""


def dims(value: ir.Value | None) -> tuple[Dim, ...] | None:
    """Dimensions of `value`, or None where even its rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def length(value: ir.Value | None, axis: int) -> int | None:
    """Static length of one axis, or None."""
    shape = dims(value)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    dim = shape[axis]
    return dim if isinstance(dim, int) else None


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is an initializer that no caller can override."""
    return value is not None and value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The data of a constant as a numpy array, or None where it is computed at run time."""
    if value is None or not is_constant(value):
        return None
    assert value.const_value is not None
    return value.const_value.numpy()


@dataclass(frozen=True)
class Block:
    """Consecutive input axes that a reshape turns into consecutive output axes with the same number of elements."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def regroup(before: Sequence[Dim], after: Sequence[Dim]) -> list[Block]:
    """Finest blocks of axes that a row-major reshape keeps together.

    Matches from the right, then from the left, until a dimension without a static length; what is left in between
    becomes one block. `regroup((N, 64, 7, 7), (N, 3136))` gives `[(0)→(0), (1, 2, 3)→(1)]`.
    """
    right = _match([*reversed(before)], [*reversed(after)])
    used_in, used_out = (sum(len(b.inputs) for b in right), sum(len(b.outputs) for b in right))
    n_in, n_out = len(before), len(after)
    tail = [
        Block(tuple(sorted(n_in - 1 - i for i in b.inputs)), tuple(sorted(n_out - 1 - o for o in b.outputs)))
        for b in reversed(right)
    ]
    head = _match(before[: n_in - used_in], after[: n_out - used_out])
    done_in, done_out = (sum(len(b.inputs) for b in head), sum(len(b.outputs) for b in head))
    middle = Block(tuple(range(done_in, n_in - used_in)), tuple(range(done_out, n_out - used_out)))
    return [*head, *([middle] if middle.inputs or middle.outputs else []), *tail]


def _match(before: Sequence[Dim], after: Sequence[Dim]) -> list[Block]:
    blocks: list[Block] = []
    i = o = 0
    while i < len(before) and o < len(after):
        if isinstance(before[i], str) and before[i] == after[o]:
            blocks.append(Block((i,), (o,)))
            i, o = i + 1, o + 1
            continue
        first, last = before[i], after[o]
        if not isinstance(first, int) or not isinstance(last, int):
            break
        ins, outs, left, made = [i], [o], first, last
        while left != made:
            grow_in = left < made
            position = (ins[-1] if grow_in else outs[-1]) + 1
            source = before if grow_in else after
            dim = source[position] if position < len(source) else None
            if not isinstance(dim, int):
                return blocks
            if grow_in:
                ins.append(position)
                left *= dim
            else:
                outs.append(position)
                made *= dim
        blocks.append(Block(tuple(ins), tuple(outs)))
        i, o = ins[-1] + 1, outs[-1] + 1
    return blocks
