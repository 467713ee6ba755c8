"""Operators that read or write positions found at run time: routing tokens to experts, and sorting.

The axes that are indexed cannot be cut, the others pass through: a token keeps all its features wherever it goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from prunec.graph.flow import STATISTIC, Axes, Flow, Ids
from prunec.graph.rules.base import KeepsAttributes, attribute, outputs_untracked, rank
from prunec.graph.rules.cut import Cut
from prunec.graph.rules.routing import meet_positions
from prunec.graph.shapes import constant, dims, length
from prunec.graph.weights import is_weight

_PICKED = "its positions are picked at run time"


class GatherND(KeepsAttributes):
    """data [d_1 … d_n], indices [… q] → [… d_q+1 … d_n]."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes, picked = flow.of(node.inputs[0]), dims(node.inputs[1])
        q = length(node.inputs[1], -1)
        if q is None or picked is None or int(attribute(node, "batch_dims", 0)) or is_weight(node.inputs[0]):
            flow.pin_inputs(node, "PC109", _PICKED)
            outputs_untracked(node, flow)
            return
        _pin(node, flow, [*axes[:q], *flow.of(node.inputs[1])])
        flow.set(node.outputs[0], [*([None] * (len(picked) - 1)), *axes[q:]])


class ScatterND(KeepsAttributes):
    """data [d_1 … d_n], indices [… q], updates [… d_q+1 … d_n]: written into (or added to) a copy of the data."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        n, q = rank(node.inputs[0]), length(node.inputs[1], -1)
        axes, updates = flow.of(node.inputs[0]), flow.of(node.inputs[2])
        if n is None or q is None or len(updates) < n - q:
            flow.pin_inputs(node, "PC109", _PICKED)
            outputs_untracked(node, flow)
            return
        left = len(updates) - (n - q)
        _pin(node, flow, [*axes[:q], *updates[:left], *flow.of(node.inputs[1])])
        merged: Axes = [*[None] * q, *(_meet(node, flow, (0, 2), (q + i, left + i)) for i in range(n - q))]
        _follow(node, flow, 0, merged)
        _follow(node, flow, 2, [*[None] * left, *merged[q:]])
        flow.set(node.outputs[0], merged)


class GatherElements(KeepsAttributes):
    """y[i, j] = data[indices[i, j], j] along `axis`."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        _element_wise(node, flow, (0, 1), output_of=1)


class ScatterElements(KeepsAttributes):
    """y = data, y[indices[i, j], j] = updates[i, j] along `axis`."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        _element_wise(node, flow, (0, 1, 2), output_of=0)


class TopK(KeepsAttributes):
    """Both outputs are sorted along `axis`; which positions win depends on all of them."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        along = int(attribute(node, "axis", -1)) % max(len(axes), 1)
        ids, wanted = axes[along] if axes else None, constant(node.inputs[1])
        reason = "TopK ranks this axis and returns positions on it"
        if ids is not None and wanted is not None:
            flow.rank(node, 0, along, ids, reason, least=int(wanted.ravel()[0]))
            if flow.experts:
                flow.positions[node.outputs[1].name or ""] = ids
        else:
            flow.pin(ids, STATISTIC, node, reason)
        if axes:
            axes[along] = None
        for output in node.outputs:
            flow.set(output, axes)


class NonZero(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        _pin(node, flow, flow.of(node.inputs[0]), "returns the positions that are not zero")
        outputs_untracked(node, flow)


class ConstantOfShape:
    """A canvas to scatter into: its ids are those of whatever is written there, and its shape is rewritten."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        shape = dims(node.outputs[0]) or ()
        flow.set(node.outputs[0], [flow.free(d) if isinstance(d, int) and d > 1 else None for d in shape])

    def cut(self, node: ir.Node, cut: Cut) -> None:
        cut.patch_shape(node, 0, node.outputs[0])


def _pin(node: ir.Node, flow: Flow, axes: Sequence[Ids], reason: str = _PICKED) -> None:
    for ids in axes:
        flow.pin(ids, "PC109", node, reason)


def _meet(node: ir.Node, flow: Flow, inputs: Sequence[int], axes: Sequence[int]) -> Ids:
    """One axis of several operands that have to keep the same positions; weights follow.

    The ids of a layer go before those of a canvas, which a reshape behind could not tell from a broadcast axis.
    """
    places = list(zip(inputs, axes, strict=True))
    lengths = {length(node.inputs[i], axis) for i, axis in places}
    found = [flow.of(node.inputs[i])[axis] for i, axis in places if not is_weight(node.inputs[i])]
    known = sorted((ids for ids in found if ids is not None), key=flow.is_free)
    if len(lengths) > 1 or len(known) < len(found):
        for ids in known:
            flow.pin(ids, "PC103", node, "meets an axis that cannot be cut alike")
        return None
    for ids in known[1:]:
        flow.unite(known[0], ids)
    return known[0] if known else None


def _follow(node: ir.Node, flow: Flow, index: int, axes: Axes) -> None:
    if is_weight(node.inputs[index]):
        flow.use(node, index, axes, "carrier")


def _element_wise(node: ir.Node, flow: Flow, inputs: Sequence[int], output_of: int) -> None:
    n = rank(node.inputs[0])
    if n is None or any(rank(node.inputs[i]) != n for i in inputs):
        flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
        outputs_untracked(node, flow)
        return
    along = int(attribute(node, "axis", 0)) % n
    merged: Axes = [None if axis == along else _meet(node, flow, inputs, [axis] * len(inputs)) for axis in range(n)]
    positions = flow.positions.get(node.inputs[1].name or "") if node.inputs[1] is not None else None
    indexed = [flow.of(node.inputs[i])[along] for i in inputs]
    if positions is not None:
        own = meet_positions(node, flow, positions, indexed.pop(0), length(node.inputs[0], along))
    else:
        own = None
    _pin(node, flow, indexed)
    with_own = [own if axis == along else ids for axis, ids in enumerate(merged)]
    for index in inputs:
        _follow(node, flow, index, merged if index else with_own)
    flow.set(node.outputs[0], with_own if output_of == 0 else merged)
