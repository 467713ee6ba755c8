"""Operators that select, join and move positions."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch
from torch.nn import functional

from prunec.graph.rules.base import attribute
from prunec.torch.operators.common import Buffer, Ints, ints


def transpose(x: Any, *, perm: tuple[int, ...] | None = None) -> Any:
    return torch.permute(x, tuple(reversed(range(x.dim()))) if perm is None else perm)


def concat(*tensors: Any, axis: int) -> Any:
    return torch.cat(tensors, axis)


def split(x: Any, split: Ints = None, *, axis: int = 0, num_outputs: int | None = None, output_count: int = 0) -> Any:
    """Without lengths: equal parts, the last one smaller if need be."""
    lengths = ints(split)
    if lengths is None:
        parts = num_outputs or output_count
        most = -(-x.shape[axis] // parts)
        lengths = [most] * (parts - 1)
        lengths.append(x.shape[axis] - sum(lengths))
    return torch.split(x, lengths, axis)


def slice_(x: Any, starts: Ints, ends: Ints, axes: Ints = None, steps: Ints = None) -> Any:
    """A negative step reads backwards: the positions are gathered."""
    first, last = ints(starts) or [], ints(ends) or []
    along = ints(axes) or list(range(len(first)))
    by = ints(steps) or [1] * len(first)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        positions = slice(*_bounds(start, end, step, x.shape[axis]))
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (positions,)]
        else:
            taken = list(range(x.shape[axis]))[slice(start, _backwards(end, x.shape[axis]), step)]
            x = torch.index_select(x, axis, torch.tensor(taken, dtype=torch.int64, device=x.device))
    return x


def _bounds(start: int, end: int, step: int, length: int) -> tuple[int, int, int]:
    low = start + length if start < 0 else start
    high = end + length if end < 0 else end
    return min(max(low, 0), length), min(max(high, 0), length), max(step, 1)


def _backwards(end: int, length: int) -> int | None:
    """Where a slice that runs backwards ends, None: before the first position."""
    return None if end < -length else end


def gather(data: Any, indices: Any, *, axis: int = 0) -> Any:
    length, axis = data.shape[axis], axis % data.dim()
    index = torch.where(indices < 0, indices + length, indices).to(torch.int64)
    if index.dim() == 0:
        return torch.select(data, axis, int(index))
    if axis == 0 and data.dim() == 2 and data.is_floating_point():
        return functional.embedding(index, data)
    taken = torch.index_select(data, axis, index.reshape(-1))
    return taken.reshape(*data.shape[:axis], *index.shape, *data.shape[axis + 1 :])


def gather_elements(data: Any, indices: Any, *, axis: int = 0) -> Any:
    return torch.gather(data, axis, torch.where(indices < 0, indices + data.shape[axis], indices).to(torch.int64))


def gather_nd(data: Any, indices: Any, *, batch_dims: int = 0) -> Any:
    if batch_dims:
        flat_data = data.reshape(-1, *data.shape[batch_dims:])
        flat_index = indices.reshape(-1, *indices.shape[batch_dims:])
        found = torch.stack([gather_nd(d, i) for d, i in zip(flat_data, flat_index, strict=True)])
        return found.reshape(*data.shape[:batch_dims], *found.shape[1:])
    return data[tuple(indices.to(torch.int64).unbind(-1))]


def scatter_elements(data: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    index = torch.where(indices < 0, indices + data.shape[axis], indices).to(torch.int64)
    if reduction == "none":
        return torch.scatter(data, axis, index, updates)
    how = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[reduction]
    return torch.scatter_reduce(data, axis, index, updates, how, include_self=True)


def scatter_nd(data: Any, indices: Any, updates: Any, *, reduction: str = "none") -> Any:
    index = tuple(indices.to(torch.int64).unbind(-1))
    return torch.index_put(data, index, updates, accumulate=reduction == "add")


def pad(x: Any, pads: Ints, value: Buffer = None, axes: Ints = None, *, mode: str = "constant") -> Any:
    """Negative amounts crop."""
    amounts = ints(pads) or []
    along = [a % x.dim() for a in ints(axes) or range(x.dim())]
    before, after = amounts[: len(along)], amounts[len(along) :]
    pairs = {axis: (low, high) for axis, low, high in zip(along, before, after, strict=True) if low or high}
    if mode == "constant":
        flat = [n for axis in reversed(range(x.dim())) for n in pairs.get(axis, (0, 0))]
        return functional.pad(x, flat, value=0 if value is None else value.item())
    for axis, (low, high) in pairs.items():
        x = torch.index_select(x, axis, _mirrored(x.shape[axis], low, high, mode).to(x.device))
    return x


def _mirrored(length: int, low: int, high: int, mode: str) -> Any:
    positions = torch.arange(-low, length + high)
    if mode == "edge":
        return positions.clamp(0, length - 1)
    if mode == "wrap":
        return positions % length
    period = max(2 * (length - 1), 1)
    turned = positions % period
    return torch.where(turned < length, turned, period - turned)


def trilu(x: Any, k: Ints = None, *, upper: int = 1) -> Any:
    diagonal = (ints(k) or [0])[0]
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def one_hot(indices: Any, depth: Ints, values: Buffer, *, axis: int = -1) -> Any:
    classes = (ints(depth) or [0])[0]
    rank = indices.dim() + 1
    index = indices.to(torch.int64)
    index = torch.where(index < 0, index + classes, index)
    hot = index.unsqueeze(-1) == torch.arange(classes, device=indices.device)
    return torch.movedim(torch.where(hot, values[1], values[0]), -1, axis % rank)


def top_k(x: Any, k: Ints, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    return torch.topk(x, (ints(k) or [1])[0], axis, bool(largest), bool(sorted))


def non_zero(x: Any) -> Any:
    return torch.nonzero(x).transpose(0, 1)


def cum_sum(x: Any, axis: Ints, *, exclusive: int = 0, reverse: int = 0) -> Any:
    along = (ints(axis) or [0])[0]
    y = torch.flip(x, (along,)) if reverse else x
    total = torch.cumsum(y, along).to(x.dtype)
    total = total - y if exclusive else total
    return torch.flip(total, (along,)) if reverse else total


def _scatter_nd_refusal(node: ir.Node) -> str | None:
    how = attribute(node, "reduction", "none")
    return None if how in ("none", "add") else f"reduction {how}"


OPERATORS = {
    "Concat": concat,
    "CumSum": cum_sum,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": non_zero,
    "OneHot": one_hot,
    "Pad": pad,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Slice": slice_,
    "Split": split,
    "TopK": top_k,
    "Transpose": transpose,
    "Trilu": trilu,
}
REFUSALS = {"ScatterND": _scatter_nd_refusal}
