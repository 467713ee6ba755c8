"""Reductions. Sums of zeros are zeros: a sum over channels consumes them exactly; other statistics change (class C)."""

from __future__ import annotations

import onnx_ir as ir

from prunec.graph.flow import STATISTIC, Axes, Flow
from prunec.graph.rules.base import KeepsAttributes, attribute, given, ints

_ZERO_PRESERVING = ("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2")


class Reduce(KeepsAttributes):
    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        reduced = self._reduced(node, len(axes))
        if reduced is None:
            flow.pin_inputs(node, "PC104", "the reduced axes are computed at run time")
            return
        keep = bool(attribute(node, "keepdims", 1))
        result: Axes = []
        for axis, ids in enumerate(axes):
            if axis not in reduced:
                result.append(ids)
                continue
            if node.op_type in _ZERO_PRESERVING:
                flow.reduce(node, 0, axis, ids)
            elif node.op_type == "ReduceMean":
                flow.statistic(node, 0, axis, ids, "ReduceMean takes its statistic over this axis")
            else:
                flow.pin(ids, STATISTIC, node, f"{node.op_type} takes its statistic over this axis")
            if keep:
                result.append(None)
        flow.set(node.outputs[0], result)

    def _reduced(self, node: ir.Node, n: int) -> set[int] | None:
        if node.op_type in ("ArgMax", "ArgMin"):
            return {int(attribute(node, "axis", 0)) % max(n, 1)}
        axes = ints(node, "axes", 1)
        if axes is None:
            if given(node, 1):
                return None
            return set() if attribute(node, "noop_with_empty_axes", 0) else set(range(n))
        if not axes and not attribute(node, "noop_with_empty_axes", 0):
            return set(range(n))
        return {a % n for a in axes}
