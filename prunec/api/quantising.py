"""Int8 after a cut: quantise what was pruned, in ONNX's own operators, and the dense model to compare with.

Target `onnx` ships that; `cpu`, `wasm` and `arm64` generate code for it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import onnx_ir as ir

from prunec.api.evidence import finite
from prunec.api.opening import Opened
from prunec.api.options import PlanOptions
from prunec.api.patterning import patterns_record, planned_layers
from prunec.api.progress import Progress, silent
from prunec.api.pruning import Pruned, target_of
from prunec.api.recovering import (
    JudgeTraining,
    Recovery,
    interrupted,
    recovered_in_8_bits,
    unless_lower,
    with_quantised_runs,
)
from prunec.api.stages import Stage, stages_of
from prunec.api.target_list import INT8, MIXED, MIXED_TARGETS, ONNX
from prunec.backends.cpu.isa import int8_weight_bits
from prunec.catalog import INT8_BACKENDS, unknown_name
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.frontend.calibration import Calibration
from prunec.measure.contender import Contender
from prunec.package.writer import save_model
from prunec.passes.quantise import LayerLosses, Quantised, Target, layer_losses, quantise
from prunec.passes.quantise.placement import quantisable
from prunec.passes.quantise.ranges import Grid
from prunec.passes.quantise.roundings import DEFAULT, ROUNDINGS, Rounding
from prunec.passes.quantise.strip import computes_in_integers, dequantised
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.plan.recovery import RecoveryPlan
from prunec.verify.records import QuantisationRecord

DENSE_INT8 = "dense_int8_onnxruntime"
"""The model as it was read in the same int8: what there is without pruning."""


NARROW = Diagnostic(
    "PC484",
    "products of 8 bits would overflow here, or depend on the machine: weights have 7 bits",
    hint="processors with VNNI take 8, and so does WebAssembly without --relaxed-simd, compiled on one of those",
)

NOT_TRAINED = Diagnostic(
    "PC348",
    "the plan has no training in 8 bits: the weights were trained in float32 only, and quantised after that",
    hint="--recover full beside --plan trains anew, before 8 bits and in them",
)

IN_FLOAT = Diagnostic(
    "PC486",
    "the model was in 8 bits and will compute in float32",
    hint="--target onnx keeps 8 bits, and so do --target cpu, wasm and arm64 with --precision int8",
)


def weight_bits(*, relaxed_simd: bool = False) -> int:
    """7 on x86 processors without VNNI, whose multiply-adds of uint8 and int8 saturate; else 8.

    Relaxed SIMD of WebAssembly multiplies by 7 bits, and ONNX Runtime on this machine is what code is compared with.
    """
    return 7 if relaxed_simd else int8_weight_bits()


def check_precision(precision: str | None, options: PlanOptions, budget: Budget | None) -> bool:
    """Whether to quantise what is left: for ONNX Runtime and for prunec's own kernels, other targets do it themselves.

    Raises:
        PrunecError PC440: no such precision for the target; PC483: a measured budget that knows no 8 bits; PC487: one
        that is not measured where layers choose their data type.
    """
    if precision is None or options.target not in (ONNX, *INT8_BACKENDS):
        return False
    if precision not in (INT8, MIXED) or (precision == MIXED and options.target not in MIXED_TARGETS):
        message = f"{options.target} computes in float32 as the model does, or in int8, not in {precision}"
        hint = "--precision int8, or leave it out"
        if precision == MIXED:
            hint += "; mixed is for --target cpu with --speedup, --latency-ms or --max-drop"
        raise PrunecError("PC440", message, where="--precision", hint=hint)
    if budget is not None and budget.is_measured and options.target == ONNX:
        message = f"--{budget.kind} is met by widths, which are timed and judged in the float model"
        hint = "use --target cpu, where zeros are timed in 8 bits; or give --flops, and gates for the finished model"
        raise PrunecError("PC483", message, where="--precision", hint=hint)
    if precision == MIXED and budget is not None and not budget.is_measured:
        message = f"--{budget.kind} says nothing of what each data type takes, by which layers get theirs"
        hint = "give --speedup, --latency-ms or --max-drop, or use --precision int8"
        raise PrunecError("PC487", message, where="--precision mixed", hint=hint)
    return True


def check_rounding(options: PlanOptions, *, is_int8: bool) -> None:
    """Refuse a way of rounding where there is none. PC203: an unknown name; PC208: nothing is rounded, or solved."""
    name = options.rounding
    if name is None:
        return
    if name not in ROUNDINGS:
        raise unknown_name("PC203", "rounding", name, ROUNDINGS)
    if not is_int8:
        message = f"weights stay real numbers for {options.target}, or are rounded by its own rules"
        hint = "--rounding is for --precision int8 with --target onnx, cpu, wasm or arm64"
        raise PrunecError("PC208", message, where="--rounding", hint=hint)
    if name != "nearest" and options.chosen_recipe().compensation == "none":
        message = f"--rounding {name} fits weights to data, which compensation is and was switched off"
        raise PrunecError("PC208", message, where="--rounding", hint="leave it out, or --no-compensate")


def rounding_for(options: PlanOptions) -> Rounding:
    """What was asked for; without compensation nothing is solved."""
    if options.chosen_recipe().compensation == "none":
        return "nearest"
    return DEFAULT if options.rounding is None else cast(Rounding, options.rounding)


def check_planned_precision(options: PlanOptions, budget: Budget | None) -> None:
    """Refuse a data type for a plan that knows none. PrunecError PC440, PC483 and PC487 as `check_precision`."""
    if options.precision is not None and options.target not in INT8_BACKENDS:
        message = f"a plan for {options.target} is the same in every data type"
        raise PrunecError("PC440", message, where="--precision", hint="give it to prunec compile, or use --target cpu")
    check_precision(options.precision, options, budget)


def implied_precision(opened: Opened, precision: str | None, options: PlanOptions) -> str | None:
    """`precision`, or int8 where a model in 8 bits was read and the target runs those.

    Raises:
        PrunecError PC485: it computes in integers otherwise than in static QDQ, whose weights can be taken apart.
    """
    if opened.stripped is None:
        needs_weights = precision is not None or options.sparse_pattern() is not None
        if needs_weights and computes_in_integers(opened.canonical):
            message = "the weights of a model that is quantised otherwise than in static 8-bit QDQ cannot be changed"
            hint = "give the float model, or quantise it with quant_format=QDQ and 8 bits"
            raise PrunecError("PC485", message, where=str(opened.source.path), hint=hint)
        return precision
    return INT8 if precision is None and options.target == "onnx" else precision


def quantised(
    opened: Opened, pruned: Pruned, asked: RecoveryPlan | None, calibration: Calibration, options: PlanOptions,
    bits: int, progress: Progress, judge: JudgeTraining | None = None,
) -> Pruned:  # fmt: skip
    """`pruned` with the model that is shipped and the record of it. `bits`: of weights (`weight_bits`).

    `asked`: how the plan trains, as it was before anything was trained; then what is quantised is trained as well, and
    left as it was where `judge` finds it lower after that.

    Raises:
        PrunecError PC480, PC481, PC482: it cannot be quantised; PC204: an edited plan has a layer in 8 bits that has no
        such form; PC040, PC343, PC346: it cannot be trained; GateError PC523: a weight lost its pattern.
    """
    plan = pruned.plan
    planned = planned_floats(plan, pruned.model)
    found = _quantise(opened, pruned.model, calibration, options, bits, progress, pruned.target, planned)
    record = QuantisationRecord(
        precision="int8",
        weight_bits=bits,
        layers=found.layers,
        left_float=dict(found.left_float) or None,
        values=found.values,
        rules=dict(sorted(found.rules.items())),
        has_corrected_biases=found.has_corrected_biases,
        error=found.error,
        error_min_max=found.plain,
        rounding=dict(sorted(found.rounding.items())),
        error_nearest=finite(found.error_nearest),
        error_swept=None if found.error_swept is None else finite(found.error_swept),
    )
    warnings = (*pruned.warnings, NARROW) if bits < 8 else pruned.warnings
    model, training, notes = _trained(opened, pruned, found.model, asked, calibration, options, bits, progress, judge)
    warnings = tuple(dict.fromkeys((*warnings, *notes)))
    if training is not None:
        record = record.model_copy(update={"recovery": training.record})
        plan = with_quantised_runs(plan, training)
    twin, patterns = dequantised(model), pruned.patterns
    if patterns is not None:
        proved = patterns_record(plan, twin, None, patterns.permutation)
        assert proved is not None
        patterns = proved.with_solved(patterns)
    return replace(
        pruned, plan=plan, quantised=model, quantisation=record, warnings=warnings, patterns=patterns, model=twin,
    )  # fmt: skip


def _trained(
    opened: Opened, pruned: Pruned, model: ir.Model, asked: RecoveryPlan | None, calibration: Calibration,
    options: PlanOptions, bits: int, progress: Progress, judge: JudgeTraining | None,
) -> tuple[ir.Model, Recovery | None, tuple[Diagnostic, ...]]:  # fmt: skip
    """The quantised `model`, trained through its quantisers where that was asked for, and what is to be said.

    After Ctrl-C in the training before it is left as it is. A plan that was replayed gets the steps that it has.
    """
    if asked is None or pruned.recovery is None:
        return model, None, ()
    if asked.runs and not asked.quantised:
        return model, None, (NOT_TRAINED,)
    if not asked.runs and interrupted(pruned.recovery):
        return model, None, ()
    steps = stages_of(opened, pruned.plan)
    trained, training = recovered_in_8_bits(steps, model, bits, asked, calibration, options, progress)
    model, training = unless_lower(model, trained, training, None if asked.quantised else judge, "in 8 bits, ")
    told = {warning.code for warning in pruned.recovery.warnings} & {"PC341"}  # of the data, once is enough
    return model, training, tuple(warning for warning in training.warnings if warning.code not in told)


def dense_in_int8(
    opened: Opened, plan: Plan, calibration: Calibration, options: PlanOptions, bits: int, progress: Progress
) -> ir.Model:
    """The dense model, quantised alike. PrunecError PC48x as `quantised`."""
    planned = planned_floats(plan, opened.canonical)
    return _quantise(opened, opened.canonical, calibration, options, bits, progress, planned=planned).model


def as_planned_in_8_bits(
    opened: Opened, steps: Sequence[Stage], model: ir.Model, plan: Plan, calibration: Calibration, options: PlanOptions
) -> ir.Model:
    """What `quantised` makes of a refitted `model` whose plan decides the data types; itself where that is float32."""
    if not has_8_bits(plan):
        return model
    target, planned = target_of(steps, planned_layers(plan)), planned_floats(plan, model)
    return _quantise(opened, model, calibration, options, weight_bits(), silent, target, planned).model


def losses_in_8_bits(opened: Opened, calibration: Calibration, options: PlanOptions, progress: Progress) -> LayerLosses:
    """What 8 bits lose on each layer of the dense model. PrunecError PC48x as `quantised`."""
    given, exclude = _as_it_came(opened, opened.canonical)
    return layer_losses(
        opened.canonical, calibration, exclude=exclude, bits=weight_bits(), seed=options.seed, threads=options.threads,
        given=given, progress=progress,
    )  # fmt: skip


def has_8_bits(plan: Plan) -> bool:
    """Whether something is left to quantise: a plan may have found every layer better off in float32."""
    return plan.precision is None or any(layer.precision == INT8 for layer in plan.layers)


def planned_floats(plan: Plan, model: ir.Model) -> dict[str, str] | None:
    """Layers of `model` that the plan leaves in float, with its reason; None where it says nothing of data types.

    Raises:
        PrunecError PC204: it was edited, and a layer in 8 bits has no such form.
    """
    if plan.precision is None:
        return None
    able = {layer.name for layer in quantisable(model)}
    wrong = next((own.node for own in plan.layers if own.precision == INT8 and own.node not in able), None)
    if wrong is not None:
        hint = "undo the edit, or write the plan again with prunec plan"
        raise PrunecError("PC204", "the layer has no form in 8 bits", where=wrong, hint=hint)
    return {own.node: own.why for own in plan.layers if own.precision == "float32" and own.node in able}


@contextlib.contextmanager
def as_contender(dense: ir.Model) -> Iterator[Contender]:
    """The dense model in int8 in ONNX Runtime, while it lasts."""
    with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
        path = Path(folder, "dense.int8.onnx")
        save_model(dense, path)
        yield Contender(DENSE_INT8, path)


def _quantise(
    opened: Opened,
    model: ir.Model,
    calibration: Calibration,
    options: PlanOptions,
    bits: int,
    progress: Progress,
    target: Target | None = None,
    planned: Mapping[str, str] | None = None,
) -> Quantised:
    """On the grids, and of the layers, that a model in 8 bits came with."""
    given, exclude = _as_it_came(opened, model)
    return quantise(
        model, calibration, exclude=exclude, given=given, planned=planned, bits=bits, seed=options.seed,
        threads=options.threads, target=target, rounding=rounding_for(options), cache=options.cache,
        progress=progress,
    )  # fmt: skip


def _as_it_came(opened: Opened, model: ir.Model) -> tuple[dict[str, Grid], list[str]]:
    """Grids of a model in 8 bits, and layers of `model` that had none there."""
    if opened.stripped is None:
        return {}, []
    given = {name: Grid.of(scale, zero) for name, (scale, zero) in opened.stripped.grids.items()}
    return given, [layer.name for layer in quantisable(model) if layer.name not in opened.stripped.layers]
