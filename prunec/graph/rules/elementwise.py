"""Element-wise operators: aligned axes are united, axes of length 1 broadcast, constants are cut along.

Alignment is numpy's (from the right). Where a tracked axis meets an untracked activation of the same length, it is
pinned: one side cannot be cut without the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Axes, Flow, Ids, Part, RawAxes
from prunec.graph.rules.base import KeepsAttributes, rank
from prunec.graph.shapes import Dim, dims, length
from prunec.graph.weights import is_weight


class Unary(KeepsAttributes):
    """y = f(x): the ids pass through. Further inputs (Clip's bounds) are scalars."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        flow.set(node.outputs[0], flow.raw(node.inputs[0]))


class Elementwise(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        if any(value is not None and rank(value) is None for value in node.inputs):
            flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
            return
        out_rank = max((rank(value) or 0 for value in node.inputs), default=0)
        whole = merge_whole(node, flow, out_rank)
        if whole is not None:
            flow.set(node.outputs[0], whole)
            return
        merged = [merge_axis(node, flow, axis - out_rank) for axis in range(out_rank)]
        widen(node, flow, merged)
        flow.set(node.outputs[0], merged)
        attach_constants(node, flow, merged)


def merge_whole(node: ir.Node, flow: Flow, out_rank: int) -> RawAxes | None:
    """Unite joint blocks (of a split that is not decided yet) as they are, or None where they have to be resolved.

    They stay whole where every activation has a block of the same layout and constants broadcast over its axes.
    """
    layouts = []
    for value in node.inputs:
        axes = flow.raw(value)
        own: RawAxes = [*([None] * (out_rank - len(axes))), *axes]
        layouts.append([entry if isinstance(entry, Part) else None for entry in own])
    blocks = [{a: entry for a, entry in enumerate(layout) if entry is not None} for layout in layouts]
    first = next((block for block in blocks if block), None)
    if first is None:
        return None
    for value, block in zip(node.inputs, blocks, strict=True):
        if block:
            same = block.keys() == first.keys() and all(
                block[a].dim == first[a].dim and block[a].ids.shape == first[a].ids.shape for a in first
            )
            if not same or len({id(part.ids) for part in block.values()}) != 1:
                return None
            continue
        meets = any(length(value, a - out_rank) not in (1, None) for a in first)
        if value is not None and (meets or flow.tracked(value)):
            return None
    if any(isinstance(e, np.ndarray) for value in node.inputs for e in flow.raw(value)):
        return None
    lead = next(iter(first.values())).ids
    for block in blocks:
        if block:
            flow.unite(lead, next(iter(block.values())).ids)
    return [first.get(axis) for axis in range(out_rank)]


def merge_axis(node: ir.Node, flow: Flow, axis: int, values: Sequence[ir.Value | None] | None = None) -> Ids:
    """Unite one aligned axis (counted from the right) over all activations of `node`, or over `values`."""
    base: Ids = None
    partners: list[tuple[ir.Value, Ids]] = []
    for value in node.inputs if values is None else values:
        if value is None or is_weight(value) or -axis > (rank(value) or 0) or length(value, axis) == 1:
            continue
        ids = flow.of(value)[axis]
        partners.append((value, ids))
        base = ids if base is None else base
    if base is None:
        return None
    for value, ids in partners:
        if ids is None:
            flow.pin(base, "PC103", node, f"meets an axis of {value.name} that cannot be cut")
        elif len(ids) == len(base):
            flow.unite(base, ids)
        else:
            flow.pin(base, "PC104", node, f"meets an axis of {value.name} of another length")
            flow.pin(ids, "PC104", node, "meets an axis of another length")
    return base


def widen(node: ir.Node, flow: Flow, axes: Axes) -> None:
    """Free ids for axes that only a constant has: all activations broadcast there (a scale times a vector)."""
    kind = node.outputs[0].dtype
    if kind is None or not kind.is_floating_point():
        return
    values = [(value, is_weight(value)) for value in node.inputs if value is not None]
    for axis in range(-len(axes), 0):
        there = [(length(value, axis), weight) for value, weight in values if -axis <= (rank(value) or 0)]
        broadcast = all(n == 1 for n, weight in there if not weight) and not all(weight for _, weight in values)
        wide = max((n or 0 for n, weight in there if weight), default=0)
        if axes[axis] is None and broadcast and wide > 1:
            axes[axis] = flow.free(wide)


def attach_constants(node: ir.Node, flow: Flow, axes: Axes) -> None:
    """Let the constant operands follow the axes they are aligned with."""
    for index, value in enumerate(node.inputs):
        if value is not None and is_weight(value):
            flow.use(node, index, aligned(axes, dims(value) or ()), "carrier")


def aligned(axes: Axes, shape: Sequence[Dim]) -> Axes:
    """Ids for the axes of an operand of `shape`, aligned from the right; None where it broadcasts."""
    missing: Axes = [None] * max(len(shape) - len(axes), 0)
    own = [*missing, *axes[max(len(axes) - len(shape), 0) :]]
    return [ids if ids is not None and len(ids) == dim else None for ids, dim in zip(own, shape, strict=True)]
