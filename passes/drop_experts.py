"""Take out the branches of experts that are gone (`graph.vanish`): whoever added what they made goes on without.

    y = a + e₁ + e₂  →  y = a + e₁        y = scatter(a, rows of e₂, e₂)  →  y = a

Nodes that nobody needs then go with their weights. Where one operand is left, an `Identity` stands under the old names,
so that the layers around it can still be paired with those of the dense model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunec.graph.vanish import SINKS, Vanishing
from prunec.passes.mask_statistics import constant


def drop_experts(model: ir.Model, vanishing: Mapping[str, Vanishing], alive: np.ndarray) -> None:
    """Rewrite `model` in place; `alive`: bool per class id."""
    gone = {name for name, own in vanishing.items() if own.is_gone(alive)}
    if not gone:
        return
    for node in list(model.graph):
        dead = [value is not None and value.name in gone for value in node.inputs]
        if any(dead) and node.op_type in SINKS and node.outputs[0].name not in gone:
            _go_on(model.graph, node, dead)
    RemoveUnusedNodesPass()(model)
    for node in list(model.graph):
        if node.op_type == "Split" and any(output.name in gone for output in node.outputs):
            _fewer_parts(model.graph, node, gone)


def _go_on(graph: ir.Graph, node: ir.Node, dead: list[bool]) -> None:
    if node.op_type in ("Add", "Sum"):
        left = [value for value, is_dead in zip(node.inputs, dead, strict=True) if not is_dead]
    else:
        left = [node.inputs[2 if node.op_type == "Where" else 0]]
    new = ir.node("Sum" if len(left) > 1 else "Identity", left, name=node.name)
    _replace(graph, node, new, list(node.outputs), list(new.outputs))


def _fewer_parts(graph: ir.Graph, node: ir.Node, gone: Collection[str | None]) -> None:
    """A Split without the parts that are gone (their sizes, which the cut made 0, go as well)."""
    kept = [number for number, output in enumerate(node.outputs) if output.name not in gone]
    attributes = {name: value for name, value in node.attributes.items() if name != "split"}
    sizes = node.inputs[1] if len(node.inputs) > 1 else None
    if "split" in node.attributes:
        before = node.attributes["split"].as_ints()
        attributes["split"] = ir.AttrInt64s("split", [before[number] for number in kept])
    else:
        assert sizes is not None and sizes.const_value is not None
        sizes = constant(graph, f"{sizes.name}.kept", sizes.const_value.numpy()[kept])
    new = ir.node(
        "Split",
        [node.inputs[0], *([] if sizes is None else [sizes])],
        attributes,
        num_outputs=len(kept),
        name=node.name,
    )
    _replace(graph, node, new, [node.outputs[number] for number in kept], list(new.outputs))


def _replace(graph: ir.Graph, node: ir.Node, new: ir.Node, olds: list[ir.Value], news: list[ir.Value]) -> None:
    ir.convenience.replace_nodes_and_values(graph, node, [node], [new], olds, news)
