"""The graph as the rules want it: static shapes, folded pads, operators without a rule spelled out in others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from prunec.backends.cpu.lower.spell import spell_out
from prunec.diagnostics import PrunecError
from prunec.graph.shapes import constant, dims, is_constant
from prunec.passes.canonicalise import canonicalise


def prepare(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
    """A copy with static shapes everywhere: those of `shapes` for inputs that are named there, else 1 for a batch.

    Raises:
        PrunecError PC452: an input has an axis of unknown length that is not the batch.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        if is_constant(value) or value.name in copy.graph.initializers:
            continue
        value.shape = ir.Shape(_static(value, shapes or {}))
    for node in copy.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    for value in copy.graph.outputs:
        if value.producer() is not None:
            value.shape = None
    copy = canonicalise(copy)
    spell_out(copy)
    _fold_pads(copy)
    common.RemoveUnusedNodesPass()(copy)
    return copy


def _static(value: ir.Value, shapes: Mapping[str, Sequence[int]]) -> list[int]:
    known = dims(value)
    given = shapes.get(value.name or "")
    if given is not None:
        return [int(n) for n in given]
    if known is None or any(not isinstance(n, int) for n in known[1:]):
        example = f"{value.name}=1,{','.join(str(n) if isinstance(n, int) else 'N' for n in (known or ())[1:])}"
        raise PrunecError(
            "PC452",
            f"generated code has fixed shapes, and {value.name} has an axis of unknown length",
            where=value.name,
            hint=f"make it static with --input-shape {example}",
        )
    return [n if isinstance(n, int) else 1 for n in known]


def _fold_pads(model: ir.Model) -> None:
    """Pad with zeros before a convolution → pads of the convolution."""
    for node in list(model.graph):
        source = node.inputs[0] if node.inputs else None
        before = source.producer() if source is not None else None
        if node.op_type != "Conv" or before is None or before.op_type != "Pad":
            continue
        amounts = constant(before.inputs[1])
        value = constant(before.inputs[2]) if len(before.inputs) > 2 and before.inputs[2] is not None else np.zeros(1)
        has_axes = len(before.inputs) > 3 and before.inputs[3] is not None
        auto = node.attributes.get_string("auto_pad", "NOTSET")
        if amounts is None or value is None or np.any(value != 0) or has_axes or auto != "NOTSET":
            continue
        if before.attributes.get_string("mode", "constant") != "constant" or np.any(amounts < 0):
            continue
        rank = len(amounts) // 2
        if any(amounts[[0, 1, rank, rank + 1]]):
            continue
        own = np.array(node.attributes.get_ints("pads") or [0] * 2 * (rank - 2))
        added = np.concatenate([amounts[2:rank], amounts[rank + 2 :]])
        node.attributes["pads"] = ir.AttrInt64s("pads", [int(n) for n in own + added])
        node.replace_input_with(0, before.inputs[0])
