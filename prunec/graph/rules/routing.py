"""Which expert a token goes to: positions that TopK answers with, and what may be made of them.

With `Flow.experts`, TopK runs over the experts that are left. Its answer numbers positions of the cut axis, so the cut
renumbers them: the order of those left is the same, and so are the winners. Whoever reads the numbers has to take part:

    Equal with a constant        the constant is renumbered; "is it expert 3" decides about the branch of expert 3
    OneHot, ScatterElements      make the axis anew
    Gather, GatherElements       pick from something that is cut along

Operators that only move numbers hand them on; any other reader pins the experts.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import STATISTIC, Axes, Flow, Ids
from prunec.graph.rules.base import attribute, outputs_untracked, rank
from prunec.graph.rules.cut import Cut
from prunec.graph.rules.elementwise import Elementwise
from prunec.graph.shapes import constant, dims, length
from prunec.graph.weights import is_weight

_MOVES = frozenset("Identity Cast Unsqueeze Squeeze Reshape Flatten Transpose Expand Tile Slice Split Gather".split())
_READERS = {"Equal": (0, 1), "OneHot": (0,), "Gather": (1,), "GatherElements": (1,), "ScatterElements": (1,)}


def follow_positions(node: ir.Node, flow: Flow) -> None:
    """Hand positions on, or pin their axis where nobody can renumber what is made of them. Call after the rule."""
    for index, value in enumerate(node.inputs):
        ids = flow.positions.get(value.name or "") if value is not None else None
        if ids is None or index in _READERS.get(node.op_type, ()) or node.op_type == "Shape":
            continue
        if node.op_type in _MOVES and index == 0 and _stays_integer(node):
            for output in node.outputs:
                flow.positions[output.name or ""] = ids
        else:
            flow.pin(ids, STATISTIC, node, "reads the positions that TopK answers with")


def _stays_integer(node: ir.Node) -> bool:
    return node.op_type != "Cast" or ir.DataType(int(attribute(node, "to"))).is_integer()


class Equal(Elementwise):
    """Positions beside a constant: one number, or one for each position along an axis of its own."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        super().couple(node, flow)
        for index, value in enumerate(node.inputs):
            ids = flow.positions.get(value.name or "") if value is not None else None
            if ids is not None:
                self._compare(node, flow, index, ids)

    def _compare(self, node: ir.Node, flow: Flow, index: int, ids: np.ndarray) -> None:
        numbers = constant(node.inputs[1 - index])
        n, output = rank(node.outputs[0]), node.outputs[0]
        if numbers is None or n is None or not ((numbers >= 0) & (numbers < len(ids))).all():
            flow.pin(
                ids, STATISTIC, node, "compares the positions that TopK answers with to something that is no expert"
            )
        elif numbers.size == 1:
            flow.decide(output, int(ids[int(numbers.ravel()[0])]), ids)
        else:
            long = [axis - numbers.ndim for axis, size in enumerate(numbers.shape) if size > 1]
            alone = len(long) == 1 and (
                length(node.inputs[index], long[0]) == 1 or -long[0] > (rank(node.inputs[index]) or 0)
            )
            if not alone or len(np.unique(numbers)) < numbers.size:
                flow.pin(ids, STATISTIC, node, "compares the positions that TopK answers with one by one")
                return
            axes: Axes = flow.of(output)
            axes[long[0]] = ids[numbers.ravel()]
            flow.set(output, axes)

    def cut(self, node: ir.Node, cut: Cut) -> None:
        for index, value in enumerate(node.inputs):
            kept, numbers = cut.positions(value), constant(node.inputs[1 - index])
            if kept is None or numbers is None:
                continue
            renumbered = np.cumsum(kept) - 1
            if numbers.size == 1:
                cut.set_constant(node, 1 - index, renumbered[numbers].astype(numbers.dtype))
                return
            left = numbers.ravel()[kept[numbers.ravel()]]
            shape = [-1 if size > 1 else 1 for size in numbers.shape]
            cut.set_constant(node, 1 - index, renumbered[left].astype(numbers.dtype).reshape(shape))


class OneHot:
    """indices […], depth, values [2] → [… depth …]: positions of experts make their axis anew."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        indices = node.inputs[0]
        axes, n = flow.of(indices), rank(node.outputs[0])
        ids, depth = flow.positions.get(indices.name or "") if indices is not None else None, constant(node.inputs[1])
        if n is None:
            flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
            flow.pin(ids, STATISTIC, node, "reads the positions that TopK answers with")
            outputs_untracked(node, flow)
            return
        if ids is not None and (depth is None or int(depth.ravel()[0]) != len(ids)):
            flow.pin(ids, STATISTIC, node, "has another depth than there are experts")
            ids = None
        axes.insert(int(attribute(node, "axis", -1)) % n, ids)
        flow.set(node.outputs[0], axes)

    def cut(self, node: ir.Node, cut: Cut) -> None:
        kept, depth = cut.positions(node.inputs[0]), constant(node.inputs[1])
        if kept is not None and depth is not None:
            cut.set_constant(node, 1, np.full(depth.shape, kept.sum(), depth.dtype))


def pick_experts(node: ir.Node, flow: Flow, along: int, ids: np.ndarray) -> None:
    """Gather with positions: the axis that it picks from is that of the experts; a stack of weights makes them."""
    data, picked = node.inputs[0], dims(node.inputs[1]) or ()
    if is_weight(data):
        lengths = dims(data) or ()
        floats = data is not None and data.dtype is not None and data.dtype.is_floating_point()
        axes: Axes = [flow.fresh(n) if floats and isinstance(n, int) and n > 1 else None for n in lengths]
        axes[along] = meet_positions(node, flow, ids, None, lengths[along])
        flow.use(node, 0, axes, ["producer" if axis == along else "carrier" for axis in range(len(axes))])
    else:
        axes = flow.of(data)
        meet_positions(node, flow, ids, axes[along], length(data, along))
    flow.set(node.outputs[0], [*axes[:along], *([None] * len(picked)), *axes[along + 1 :]])


def meet_positions(node: ir.Node, flow: Flow, ids: np.ndarray, own: Ids, size: object) -> Ids:
    """Unite an axis (`own`; None where it is a weight's) with that of the experts; pins both where they differ."""
    is_whole = is_weight(node.inputs[0]) or own is not None
    if not is_whole or size != len(ids):
        for entry in (ids, own):
            flow.pin(
                entry, STATISTIC, node, "picks the positions that TopK answers with from an axis that cannot be cut"
            )
        return None
    if own is not None:
        flow.unite(ids, own)
    return ids
