"""`explain`: one layer, the channels that pass through it, and what stands in the way of cutting them; or a plan."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from prunec.api.inspection import pin_info
from prunec.api.opening import InputShapes, Model, open_model
from prunec.api.plan_explanation import explain_plan, plan_file
from prunec.api.results import Explanation, LayerPart, PlanExplanation, TargetExplanation
from prunec.api.stages import inspected
from prunec.catalog import unknown_name
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis, Group
from prunec.graph.cost import model_macs, node_macs
from prunec.graph.shapes import dims, is_constant
from prunec.plan.structures import DEFAULT_STRUCTURES, parse_structures

Does = Literal["makes", "uses", "carries", "passes"]
_DOES: dict[str, Does] = {"producer": "makes", "consumer": "uses", "carrier": "carries"}


def explain(
    model: Model,
    layer: str | None = None,
    *,
    target: str | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    input_shapes: InputShapes | None = None,
    structures: str | Sequence[str] | None = None,
) -> Explanation | TargetExplanation | PlanExplanation:
    """Everything about `layer`: the name of a node, or of a tensor that only one node makes or uses.

    `model` may also be a plan file or a package: then why its groups and layers were left as they are, `layer` being
    one of them or None for all.

    `structures` as for `inspect`: which groups there are depends on what may go. With `target`, what that target
    would do with the layer, or with all of them where `layer` is None.

    Raises:
        PrunecError PC120: no layer has that name; the hint has the nearest ones; PC121: neither layer nor target;
        PC216: structures that are not; PC401, PC404: the target; PC440: structures beside a target, or options about a
        model beside a plan; PC204: not a plan.
    """
    plan = plan_file(Path(model)) if isinstance(model, str | os.PathLike) else None
    if plan is not None:
        if target is not None or structures is not None or input_shapes:
            message = "a plan has decided that already: --target, --structures and --input-shape are about models"
            raise PrunecError("PC440", message, where=str(plan), hint="leave them out, or give the model")
        return explain_plan(plan, layer)
    if target is not None:
        from prunec.api.target_explanation import explain_target

        if structures is not None:
            message = "--structures is about what can be cut, --target about what runs sparse"
            raise PrunecError("PC440", message, where="--structures", hint="leave one of the two out")
        return explain_target(
            model, target, layer,
            example_inputs=example_inputs, dynamic_shapes=dynamic_shapes, input_shapes=input_shapes,
        )  # fmt: skip
    is_missing = isinstance(model, str | os.PathLike) and not Path(model).exists()  # said when it is opened
    if layer is None and not is_missing:
        hint = "prunec explain MODEL LAYER, or prunec explain MODEL --target tensorrt-2:4 for all layers"
        raise PrunecError("PC121", "nothing says which layer to explain", where="LAYER", hint=hint)
    wanted = DEFAULT_STRUCTURES if structures is None else parse_structures(structures)
    opened = open_model(model, input_shapes, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes)
    assert layer is not None
    node = find_layer(opened.canonical, layer)
    parts = tuple(_parts(inspected(opened, wanted), node))
    macs, total = node_macs(node), model_macs(opened.canonical)
    return Explanation(
        model=opened.source.path.name,
        layer=node.name or "",
        op_type=node.op_type,
        macs=macs,
        macs_share=macs / total if total else 0.0,
        parameters=sum(_size(value) for value in node.inputs if is_constant(value)),
        input_shapes=tuple(_shape(value) for value in node.inputs if value is not None and not is_constant(value)),
        output_shapes=tuple(_shape(value) for value in node.outputs),
        parts=parts,
        verdict=tuple(_verdict(node, parts)),
    )


def find_layer(model: ir.Model, name: str) -> ir.Node:
    """The node of that name, else the one that makes the tensor, else the first one that uses the weight."""
    nodes = {node.name or "": node for node in model.graph}
    if name in nodes:
        return nodes[name]
    weights = [(value, node) for node in reversed(model.graph) for value in node.inputs if value is not None]
    by_tensor = {value.name or "": node for value, node in weights if is_constant(value)}
    by_tensor |= {value.name or "": node for node in model.graph for value in node.outputs}
    if name in by_tensor:
        return by_tensor[name]
    raise unknown_name("PC120", "layer", name, nodes)


def _parts(analysis: Analysis, node: ir.Node) -> list[LayerPart]:
    parts: list[LayerPart] = []
    for group in analysis.groups:
        own = [member for member in group.members if member.node == node.name]
        roles = {member.role for member in own}
        for role in ("producer", "consumer", *(("carrier",) if "producer" not in roles else ())):
            also = {"carrier"} if role == "producer" else set()  # its bias goes with what a layer makes
            tensors = tuple(dict.fromkeys(m.tensor for m in own if m.role == role or m.role in also))
            if role in roles:
                parts.append(_part(group, node, _DOES[role], tensors))
    if not parts:
        parts = [_part(group, node, "passes", ()) for group in _passing(analysis, node)]
    return parts


def _passing(analysis: Analysis, node: ir.Node) -> list[Group]:
    """Groups whose channels are on an axis of what the node takes or makes."""
    arrays = [
        ids
        for value in [*node.inputs, *node.outputs]
        if value is not None
        for ids in analysis.value_axes.get(value.name or "", ())
        if ids is not None
    ]
    seen = np.unique(np.concatenate(arrays)) if arrays else np.zeros(0, np.int64)
    return [group for group in analysis.groups if np.isin(group.channels, seen).any()]


def _part(group: Group, node: ir.Node, does: Does, tensors: tuple[str, ...]) -> LayerPart:
    others = [m for m in group.members if m.node != node.name]
    return LayerPart(
        group=group.id,
        size=group.size,
        does=does,
        tensors=tensors,
        coupled_with=tuple(dict.fromkeys(m.node for m in others if m.role == "producer")),
        used_by=tuple(dict.fromkeys(m.node for m in others if m.role == "consumer")),
        cost_share=group.cost_share,
        pinned=pin_info(group.pinned),
    )


def _verdict(node: ir.Node, parts: tuple[LayerPart, ...]) -> list[str]:
    """Sentences that answer: what of this layer can be cut, and why not the rest?"""
    if not parts:
        return [f"No channel that could be cut passes through {node.name}."]
    sentences = []
    for part in parts:
        what = {"makes": "makes", "uses": "uses", "carries": "carries a value for each of", "passes": "passes on"}
        start = f"{node.name} {what[part.does]} the {part.size} channels of {part.group}"
        if part.pinned is not None:
            sentences.append(f"{start}. They stay: {part.pinned.node} {part.pinned.reason} [{part.pinned.code}].")
        elif part.size < 2:
            sentences.append(f"{start}. It stays: nothing would be left.")
        elif part.does == "makes" and part.coupled_with:
            sentences.append(f"{start}. They can be cut, together with those of {', '.join(part.coupled_with)}.")
        else:
            sentences.append(f"{start}. They can be cut.")
    return sentences


def _size(value: ir.Value | None) -> int:
    return math.prod(d for d in dims(value) or () if isinstance(d, int))


def _shape(value: ir.Value) -> str:
    shape = dims(value)
    return "?" if shape is None else "×".join("?" if d is None else str(d) for d in shape) or "scalar"
