"""`explain --target`: what a target would do with the layers of a model as it is, before anything is pruned."""

from __future__ import annotations

from typing import Any

from onnx_ir.passes.common import ShapeInferencePass

from prunec.api.explanation import find_layer
from prunec.api.opening import InputShapes, Model, read_source
from prunec.api.results import TargetExplanation, TargetLayer
from prunec.api.target_list import TARGETS, backend_for, check_target
from prunec.backends.base import Verdict
from prunec.catalog import BACKENDS
from prunec.diagnostics import PrunecError


def explain_target(
    model: Model,
    target: str,
    layer: str | None = None,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    input_shapes: InputShapes | None = None,
) -> TargetExplanation:
    """All layers with weights, or the one called `layer`.

    Raises:
        PrunecError PC401: the target; PC404: it takes any layer; PC120: no layer has that name.
    """
    check_target(target)
    backend = backend_for(target)
    if backend is None:
        hint = f"those that choose are {', '.join(t.name for t in TARGETS if t.name in BACKENDS)}"
        raise PrunecError("PC404", f"{target} runs every layer alike", where="--target", hint=hint)
    source = read_source(model, input_shapes, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes)
    verdicts = backend.judge(ShapeInferencePass()(source.model.clone()).model)
    if layer is not None:
        name = find_layer(source.model, layer).name or ""
        verdicts = [verdict for verdict in verdicts if verdict.node == name]
        if not verdicts:
            raise PrunecError("PC120", f"{name} has no weights to prune", where=layer, hint="leave the layer out")
    return TargetExplanation(
        model=source.path.name,
        target=target,
        layers=tuple(map(_layer, verdicts)),
        eligible=sum(verdict.eligible for verdict in verdicts),
        worthwhile=sum(verdict.worthwhile for verdict in verdicts),
        sparse_now=sum(verdict.is_sparse for verdict in verdicts),
    )


def _layer(verdict: Verdict) -> TargetLayer:
    count = verdict.count
    return TargetLayer(
        node=verdict.node, op_type=verdict.op, tensor=verdict.tensor, axis=verdict.axis, inputs=verdict.inputs,
        outputs=verdict.outputs, positions=verdict.positions, rows=verdict.rows, macs=verdict.macs,
        runs=None if count is None else count.units, valid=None if count is None else count.valid,
        zeros=None if count is None else round(count.zeros, 9), sparse_now=verdict.is_sparse,
        eligible=verdict.eligible, worthwhile=verdict.worthwhile, why_not=verdict.reason or None,
        change=verdict.change or None,
    )  # fmt: skip
