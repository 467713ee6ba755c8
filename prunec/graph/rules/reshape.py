"""Reshape, Flatten, Squeeze, Unsqueeze: index movement by blocks of axes (`shapes.regroup`).

Merging (C, H, W) → C·H·W repeats each id H·W times. Splitting C → (a, b) can follow only one of the two axes: the ids
along the other are united. `Flow.split` decides which ("outer": a, whole heads; "inner": b), unless one of them
needs no union at all.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Axes, Flow
from prunec.graph.rules.base import attribute
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import Block, Dim, dims, regroup


class Reshape:
    def couple(self, node: ir.Node, flow: Flow) -> None:
        data, output = node.inputs[0], node.outputs[0]
        axes, before, after = flow.of(data), dims(data), dims(output)
        if not flow.tracked(data):
            flow.set(output, [None] * len(after or ()))
            return
        if before is None or after is None:
            flow.pin_inputs(node, "PC104", "the shape is computed at run time")
            return
        result: Axes = [None] * len(after)
        for block in self._blocks(node, before, after):
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
        axes: Axes,
        before: tuple[Dim, ...],
        after: tuple[Dim, ...],
        result: Axes,
    ) -> None:
        tracked = [a for a in block.inputs if axes[a] is not None]
        if not tracked:
            return
        sizes = [before[a] for a in block.inputs], [after[a] for a in block.outputs]
        if len(tracked) > 1 or not all(isinstance(d, int) for dims_ in sizes for d in dims_):
            for axis in tracked:
                flow.pin(axes[axis], "PC104", node, "is regrouped with an axis whose length or channels vary")
            return
        ids = axes[tracked[0]]
        assert ids is not None
        position = block.inputs.index(tracked[0])
        view = ids.reshape([-1 if i == position else 1 for i in range(len(block.inputs))])
        flat = np.broadcast_to(view, [int(d) for d in sizes[0]]).ravel()  # type: ignore[arg-type]
        long = [a for a in block.outputs if after[a] != 1]
        if not long:
            return
        grid = flat.reshape([int(after[a]) for a in long])  # type: ignore[arg-type]
        options = [np.moveaxis(grid, i, 0).reshape(grid.shape[i], -1) for i in range(len(long))]
        free = [i for i, option in enumerate(options) if (option == option[:, :1]).all()]
        chosen = free[0] if free else (0 if flow.split == "outer" else len(long) - 1)
        option = options[chosen]
        if not free:
            flow.unite(option[:, :1], option)
        result[long[chosen]] = option[:, 0]

    def cut(self, node: ir.Node, cut: Cut) -> None:
        if node.op_type == "Reshape":
            cut.patch_shape(node, 1, node.outputs[0])
