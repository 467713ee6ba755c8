"""What a rule may ask and do while channels are being removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant


@dataclass(frozen=True)
class Cut:
    """Kept positions per axis, before the shapes of the graph are updated, and the few edits that rules need."""

    kept: Callable[[ir.Value | None, int], np.ndarray | None]
    """(activation, axis) → bool mask over the positions of the axis, or None where nothing is cut."""
    add_constant: Callable[[str, np.ndarray], ir.Value]
    """Register a new initializer under a unique name derived from the given one."""
    positions: Callable[[ir.Value | None], np.ndarray | None]
    """value → bool mask over the positions that its integers number, or None where it holds none or all stay."""
    insert_before: Callable[[ir.Node, str, list[ir.Value], dict[str, ir.Attr]], ir.Value]
    """Insert a new node in front of a node and return its output."""

    def count(self, value: ir.Value | None, axis: int) -> int | None:
        """Number of positions left on a cut axis, or None where nothing is cut."""
        mask = self.kept(value, axis)
        return None if mask is None else int(mask.sum())

    def set_constant(self, node: ir.Node, index: int, array: np.ndarray) -> None:
        """Give `node` its own constant at an input; other users of the old one are untouched."""
        old = node.inputs[index]
        base = old.name if old is not None and old.name else f"{node.name}.{index}"
        node.replace_input_with(index, self.add_constant(base, array))

    def patch_shape(self, node: ir.Node, index: int, output: ir.Value, axes: list[int] | None = None) -> None:
        """Write the new lengths of the cut axes of `output` into the shape vector at input `index`.

        `axes[i]` is the output axis that entry i stands for (default: i). Works on constants and on vectors computed
        at run time. Entries 0 and -1 of a constant stay where they already give the new length.
        """
        rank = len(output.shape) if output.shape is not None else 0
        entries = list(range(rank)) if axes is None else axes
        new = {i: n for i, axis in enumerate(entries) if (n := self.count(output, axis)) is not None}
        if not new:
            return
        target = constant(node.inputs[index])
        if target is not None:
            values = target.copy()
            for i, n in new.items():
                if values[i] != -1:
                    values[i] = n
            self.set_constant(node, index, values)
            return
        parts: list[ir.Value] = []
        start = 0
        source = node.inputs[index]
        assert source is not None
        for i, n in [*sorted(new.items()), (len(entries), None)]:
            if i > start:
                bounds = [
                    self.add_constant(f"{node.name}.{tag}", np.array([v])) for tag, v in (("from", start), ("to", i))
                ]
                parts.append(self.insert_before(node, "Slice", [source, *bounds], {}))
            if n is not None:
                parts.append(self.add_constant(f"{node.name}.length", np.array([n])))
            start = i + 1
        patched = self.insert_before(node, "Concat", parts, {"axis": ir.AttrInt64("axis", 0)})
        node.replace_input_with(index, patched)
