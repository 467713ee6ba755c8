"""Small helpers that several rules share."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import constant


class KeepsAttributes:
    """A rule whose node needs no rewriting when channels go."""

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """Nothing to rewrite."""


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Python value of an attribute, or the default."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def ints(node: ir.Node, name: str, index: int) -> list[int] | None:
    """Integers that older opsets hold in an attribute and newer ones in a constant input; None: absent or computed."""
    found = attribute(node, name)
    if found is not None:
        return [int(v) for v in (found if not isinstance(found, int) else [found])]
    if index < len(node.inputs):
        array = constant(node.inputs[index])
        return None if array is None else [int(v) for v in array.ravel()]
    return None


def given(node: ir.Node, index: int) -> bool:
    """Whether an optional input is there."""
    return index < len(node.inputs) and node.inputs[index] is not None


def rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def outputs_untracked(node: ir.Node, flow: Flow) -> None:
    for output in node.outputs:
        flow.set(output, [None] * (rank(output) or 0))
