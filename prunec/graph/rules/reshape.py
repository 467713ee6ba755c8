"""Reshape, Flatten, Squeeze, Unsqueeze: index movement by blocks of axes (`shapes.regroup`).

Merging (C, H, W) → C·H·W repeats each id H·W times. Splitting C → (a, b) makes a joint block of ids over both axes
(`flow.Part`). In the end channels can go along only one of them: `Flow.split` decides which ("outer": a, whole heads;
"inner": b), unless one of them needs no union at all.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Flow, Part, RawAxes
from prunec.graph.rules.base import attribute
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import Block, Dim, dims, regroup


class Reshape:
    def couple(self, node: ir.Node, flow: Flow) -> None:
        data, output = node.inputs[0], node.outputs[0]
        axes, before, after = flow.raw(data), dims(data), dims(output)
        if not flow.tracked(data):
            flow.set(output, [None] * len(after or ()))
            return
        if before is None or after is None:
            flow.pin_inputs(node, "PC104", "the shape is computed at run time")
            return
        blocks = self._blocks(node, before, after)
        if any(not _whole(block, axes) for block in blocks if _passed(block, before, after) is None):
            axes = [*flow.of(data)]
        result: RawAxes = [None] * len(after)
        for block in blocks:
            self._move(node, flow, block, axes, before, after, result)
        flow.set(output, result)

    def _blocks(self, node: ir.Node, before: tuple[Dim, ...], after: tuple[Dim, ...]) -> list[Block]:
        if node.op_type == "Flatten":
            axis = int(attribute(node, "axis", 1)) % (len(before) + 1)
            return [Block(tuple(range(axis)), (0,)), Block(tuple(range(axis, len(before))), (1,))]
        return regroup(before, after)

    def _move(
        self,
        node: ir.Node,
        flow: Flow,
        block: Block,
        axes: RawAxes,
        before: tuple[Dim, ...],
        after: tuple[Dim, ...],
        result: RawAxes,
    ) -> None:
        passed = _passed(block, before, after)
        if passed is not None:
            result[passed[1]] = axes[passed[0]]
            return
        tracked = [a for a in block.inputs if axes[a] is not None]
        if len(tracked) > 1:
            for axis in tracked:
                entry = axes[axis]
                if isinstance(entry, np.ndarray) and flow.is_free(entry):
                    flow.pin(entry, "PC104", node, "is merged with other channels")
                    tracked = [a for a in tracked if a != axis]
        if not tracked:
            return
        lengths = [before[a] for a in block.inputs], [after[a] for a in block.outputs]
        entries = [axes[a] for a in tracked]
        joint = len(entries) == 1 or all(isinstance(e, Part) and e.ids is entries[0].ids for e in entries)  # type: ignore[union-attr]
        if not joint or not all(isinstance(d, int) for dims_ in lengths for d in dims_):
            for entry in entries:
                ids = entry.ids.ravel() if isinstance(entry, Part) else entry
                flow.pin(ids, "PC104", node, "is regrouped with an axis whose length or channels vary")
            return
        first = entries[0]
        order = [entry.dim if isinstance(entry, Part) else 0 for entry in entries]
        source = np.transpose(first.ids, order) if isinstance(first, Part) else first
        assert source is not None
        view = source.reshape([before[a] if a in tracked else 1 for a in block.inputs])
        flat = np.broadcast_to(view, [int(d) for d in lengths[0]]).ravel()  # type: ignore[arg-type]
        long = [a for a in block.outputs if after[a] != 1]
        if long:
            for axis, entry in zip(long, flow.joint(flat.reshape([after[a] for a in long])), strict=True):
                result[axis] = entry

    def cut(self, node: ir.Node, cut: Cut) -> None:
        if node.op_type == "Reshape":
            cut.patch_shape(node, 1, node.outputs[0])


def _whole(block: Block, axes: RawAxes) -> bool:
    """Whether every joint block of ids that `block` touches lies inside it."""
    for axis in block.inputs:
        entry = axes[axis]
        if isinstance(entry, Part):
            inside = sum(isinstance(e, Part) and e.ids is entry.ids for a in block.inputs if (e := axes[a]) is not None)
            if inside != entry.ids.ndim:
                return False
    return True


def _passed(block: Block, before: tuple[Dim, ...], after: tuple[Dim, ...]) -> tuple[int, int] | None:
    """(input axis, output axis) where a block only adds or drops axes of length 1 around one axis."""
    inputs = [a for a in block.inputs if before[a] != 1]
    outputs = [a for a in block.outputs if after[a] != 1]
    return (inputs[0], outputs[0]) if len(inputs) == len(outputs) == 1 else None
