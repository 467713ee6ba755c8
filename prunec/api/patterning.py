"""Sparsity patterns in a compile: plan them, carry them out, prove them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunec.api.evidence import finite
from prunec.api.finer import finer_blocks, finer_patterns, with_finer
from prunec.api.levels import allocate_levels, chosen_allocation
from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.target_list import backend_for
from prunec.api.worth import worthwhile
from prunec.diagnostics import Diagnostic, GateError, PrunecError
from prunec.frontend.calibration import Calibration
from prunec.graph.cost import FLOAT_TYPES
from prunec.passes.quantise.strip import dequantised
from prunec.passes.sparsify import LayerPattern, Sparsifier, prove_patterns
from prunec.patterns import Pattern, parse
from prunec.plan.budget import Budget
from prunec.plan.cost_model import CostModel
from prunec.plan.fingerprint import fingerprint
from prunec.plan.layers import ANY_LAYER, DENSE, TargetRules, choose_layers, refusals
from prunec.plan.plan import Plan
from prunec.plan.rounding import step_for
from prunec.plan.shares import realised
from prunec.verify.records import PatternRecord, PatternsRecord, PermutationRecord

NOT_FASTER = Diagnostic(
    "PC226",
    "zeros in the weights make no model faster in ONNX Runtime: it has no sparse kernels",
    hint="the package is for targets that have some; --pattern channel makes it faster in ONNX Runtime itself",
)


def channel_options(options: PlanOptions, pattern: Pattern) -> PlanOptions:
    """What the channel planner is asked for beside a pattern: widths that the pattern fits."""
    step = math.lcm(step_for(options.target, options.round_to), pattern.width, pattern.quantum)
    return replace(options, pattern="channel", sparsity=None, round_to=step)


NOTHING = "its main graph has no layer with constant weights, and those of branches stay as they are"


def whole_plan(opened: Opened, options: PlanOptions, budget: Budget) -> Plan:
    """A plan that cuts no channels."""
    model, analysis = opened.canonical, opened.analysis
    alive = np.ones(analysis.channel_count, bool)
    recipe = options.chosen_recipe()
    return Plan(
        source_sha256=opened.source.sha256,
        fingerprint=fingerprint(model, analysis),
        target=options.target,
        criterion="none",
        normalise=recipe.normalise,
        scope=recipe.scope,
        seed=options.seed,
        budget=budget,
        rounding=1,
        floor=0.0,
        include=tuple(options.include),
        exclude=tuple(options.exclude),
        groups=(),
        realised=realised(CostModel(model, analysis), analysis, alive),
        notes=(),
    )


def with_layers(
    plan: Plan, cut: ir.Model, options: PlanOptions, pattern: Pattern, calibration: Calibration, progress: Progress
) -> tuple[Plan, list[Diagnostic]]:
    """`plan` and a pattern on every layer of the `cut` model that can have it, as much as the allocation gives it.

    And what there is to say about layers that the target runs no faster with zeros.

    Raises:
        PrunecError PC206: a name matches no layer; PC208: options about an allocation that it is not; PC225: no layer
        can have it.
    """
    level, allocation = pattern.level(options.sparsity), chosen_allocation(options, pattern)
    rules = target_rules(options.target, cut)
    finer = finer_patterns(pattern, options)
    layers, *others = (
        choose_layers(cut, one, level, options.include, options.exclude, rules) for one in (pattern, *finer)
    )
    layers, notes = worthwhile(with_finer(layers, others), cut, options, progress)
    if all(layer.pattern == DENSE for layer in layers):
        why = "; ".join(f"{layer.node}: {layer.why}" for layer in layers[:3]) or NOTHING
        hint = "try unstructured"
        if rules is not ANY_LAYER:
            hint = f"prunec explain MODEL --target {options.target} has all reasons; --include '*' takes what can be"
        raise PrunecError("PC225", f"no layer is to be {pattern}: {why}", where="--pattern", hint=hint)
    mean = pattern.mean_level(options.sparsity)
    layers = allocate_levels(layers, cut, pattern, allocation, mean, calibration, options, progress)
    layers = finer_blocks(layers, cut, finer, options, progress)
    own = {"pattern": pattern.name, "solver": options.solver or "balanced", "layers": layers}
    spread = {} if allocation == "uniform" else {"allocation": allocation, "level": mean}
    by_loss = {"losses": options.loss_source} if allocation == "loss" else {}
    return plan.model_copy(update={**own, **spread, **by_loss}), notes


def target_rules(target: str, model: ir.Model) -> TargetRules:
    """Which layers the target would keep dense."""
    backend = backend_for(target)
    return ANY_LAYER if backend is None else backend.rules(model)


def sparsifier(plan: Plan, cut: ir.Model) -> Sparsifier | None:
    """What refits the plan's sparse layers in `cut`, None where there are none.

    Raises:
        PrunecError PC204: the plan was edited into something that the model or its layers cannot be.
    """
    layers = planned_layers(plan)
    if not layers:
        return None
    wrong = refusals(cut, layers, target_rules(plan.target, cut))
    if wrong:
        node, why = next(iter(wrong.items()))
        raise PrunecError("PC204", why, where=node, hint="undo the edit, or write the plan again with prunec plan")
    return Sparsifier(layers, plan.solver or "balanced")


def planned_layers(plan: Plan) -> dict[str, LayerPattern]:
    """Node → pattern and level, of those that do not stay dense."""
    return {
        layer.node: LayerPattern(parse(layer.pattern), layer.level) for layer in plan.layers if layer.pattern != DENSE
    }


def patterns_record(
    plan: Plan, model: ir.Model, done: Sparsifier | None = None, order: PermutationRecord | None = None
) -> PatternsRecord | None:
    """Proof from the model's own bytes, beside what the solver said; None where no pattern was planned.

    Raises:
        GateError PC523: a weight does not have its pattern.
    """
    layers = planned_layers(plan)
    if not layers:
        return None
    model = dequantised(model)
    proofs = prove_patterns(model, layers)
    tensors = {layer.node: layer.tensor for layer in plan.layers}
    records = []
    for node, proof in proofs.items():
        if not proof.passed:
            message = f"{proof.valid} of {proof.units} units are {proof.pattern}, {proof.zeros:.1%} zeros"
            raise GateError("PC523", f"a weight does not have its pattern: {message}", where=node)
        result = None if done is None else done.results.get(node)
        records.append(
            PatternRecord(
                layer=node,
                tensor=tensors[node],
                pattern=proof.pattern,
                level=proof.level,
                units=proof.units,
                valid=proof.valid,
                zeros=round(proof.zeros, 9),
                passed=proof.passed,
                method=None if result is None else result.method,
                damping=None if result is None else result.damping,
                error_fit=None if result is None else finite(result.error_fit),
                error_held_out=None if result is None else finite(result.error_held_out),
                error_plain=None if result is None else finite(result.error_plain),
                error=None if result is None else finite(result.error),
                notes=None if result is None or not result.notes else result.notes,
            )
        )
    return PatternsRecord(layers=tuple(records), zeros=round(_zero_share(model), 9), passed=True, permutation=order)


def _zero_share(model: ir.Model) -> float:
    """Of all floating-point values in the model's constants."""
    zeros = total = 0
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.dtype in FLOAT_TYPES:
            array = value.const_value.numpy()
            zeros += array.size - int(np.count_nonzero(array))
            total += array.size
    return zeros / total if total else 0.0
