"""`plan`: decide which channels go, and write that down."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunec.api.gates import wide_drop
from prunec.api.opening import InputShapes, Model, Opened, PathLike, open_model
from prunec.api.options import PlanOptions
from prunec.api.patterning import NOT_FASTER, channel_options, whole_plan, with_layers
from prunec.api.permuting import with_permutation
from prunec.api.progress import Progress, silent
from prunec.api.pruning import Judged, judge_dense
from prunec.api.quantising import check_planned_precision
from prunec.api.sample_count import default_samples, samples_for_drop
from prunec.api.scoring import scored
from prunec.api.staged_planning import make_staged
from prunec.api.stages import checked, stages_of
from prunec.api.target_list import MIXED
from prunec.api.timed_planning import make_timed
from prunec.api.training_options import planned_training
from prunec.cache import default_cache
from prunec.criteria import create
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.frontend.calibration import Calibration, Samples, open_calibration
from prunec.frontend.input_shapes import complete_shapes
from prunec.graph.cost import PARAMETER_TYPES
from prunec.package.writer import save_model
from prunec.patterns import Pattern
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.plan.structures import DEFAULT_STRUCTURES
from prunec.verify.user_metric import load_metric

UNREAD_METRIC = Diagnostic(
    "PC233", "no model is judged by the metric while this plan is made", where="--metric",
    hint="compile judges the finished model by it; plan does with --max-drop or --sweep",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """A plan and what was found on the way."""

    plan: Plan
    warnings: tuple[Diagnostic, ...]

    def to_json(self) -> dict[str, Any]:
        """The plan file's own content."""
        return self.plan.model_dump(mode="json")


def plan(
    model: Model,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    output: PathLike | None = None,
    target: str = "onnx",
    pattern: str = "auto",
    recipe: str | Path | None = None,
    criterion: str | None = None,
    scope: str | None = None,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    speedup: float | None = None,
    latency_ms: float | None = None,
    max_drop: float | None = None,
    size_mb: float | None = None,
    calib: Samples = None,
    metric: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    round_to: int | None = None,
    structures: str | Sequence[str] | None = None,
    solver: str | None = None,
    allocation: str | None = None,
    losses: str | None = None,
    permute: bool | None = None,
    finer: float | None = None,
    polish: int = 0,
    precision: str | None = None,
    cache: bool = True,
    input_shapes: InputShapes | None = None,
    progress: Progress = silent,
) -> Planned:
    """Decide which channels of `model` go, for `target` and one budget; `output` is where to write it.

    `precision` (int8 or mixed, `target="cpu"`): what layers are timed and judged in, or may be.

    `model`: an ONNX file, or a torch module with `example_inputs` (see `prunec.frontend.torch`).
    Statistics are kept in `prunec.cache` for the next call, unless `cache` is False.

    Raises:
        PrunecError PC0xx: the model; PC2xx: the budget, a name, a pattern; PC3xx: the calibration data; PC401: target.
    """
    options = PlanOptions(
        target=target, precision=precision, pattern=pattern, recipe=recipe, criterion=criterion, scope=scope,
        sparsity=sparsity, flops=flops, params=params, speedup=speedup, latency_ms=latency_ms, size_mb=size_mb,
        calib=calib, samples=samples, seed=seed, threads=threads, include=include,
        exclude=exclude, round_to=round_to, structures=structures, solver=solver,
        allocation=allocation, losses=losses, permute=permute, finer=finer, polish=polish,
        input_shapes=input_shapes, cache=default_cache() if cache else None,
    )  # fmt: skip
    options.check()
    budget = options.required_budget(max_drop=max_drop)
    check_planned_precision(options, budget)
    judges = max_drop is not None and budget.is_measured
    if metric is not None and max_drop is not None and not judges:
        message = "a plan is judged by a metric where --max-drop is a budget"
        raise PrunecError("PC220", message, where="--metric", hint="compile judges the finished model; or leave it out")
    judged_by = load_metric(metric) if metric is not None and judges else None
    progress("reading the model", 0, 0)
    opened = open_model(model, input_shapes, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes)
    own = judge_dense(opened, judged_by, threads, progress)
    calibration = open_data(opened, options, budget)
    more = (*wide_drop(max_drop, own), *(() if metric is None or judges else (UNREAD_METRIC,)))
    made, warnings = make(opened, calibration, options, budget, progress, own, max_drop)
    if output is not None:
        from prunec.package.errors import os_errors

        with os_errors(Path(output)):
            made.save(Path(output))
    damaged = () if options.cache is None else options.cache.warnings
    return Planned(made, (*opened.warnings, *calibration.warnings, *more, *warnings, *damaged))


def open_data(opened: Opened, options: PlanOptions, budget: Budget | None = None) -> Calibration:
    """The calibration data, checked against the model's inputs; more of it where `budget` is one of quality."""
    demanded = options.samples is not None
    is_sparse = options.sparse_pattern() is not None
    samples = options.samples or default_samples(opened.canonical, options.calib, is_sparse=is_sparse)
    if budget is not None and budget.kind == "max-drop" and not demanded:
        samples = samples_for_drop(samples, budget.value)
    return open_calibration(
        options.calib, opened.canonical, samples=samples, seed=options.seed, demanded=demanded,
        shapes=complete_shapes(opened.canonical, options.made_up_shapes or {}),
    )  # fmt: skip


MADE_UP = Diagnostic(
    "PC323",
    "random inputs stand in for real ones: what goes, and how the rest is refitted, depends on them",
    hint="give real inputs with --calib",
)


def make(
    opened: Opened,
    calibration: Calibration,
    options: PlanOptions,
    budget: Budget,
    progress: Progress,
    own: Judged | None = None,
    max_drop: float | None = None,
) -> tuple[Plan, tuple[Diagnostic, ...]]:
    """The plan, and what there is to say about it: channels as far as the budget asks for them, then patterns.

    `max_drop` beside a budget of time has to hold too; beside a counted one the finished model is judged by it.
    """
    pattern = options.sparse_pattern()
    if budget.is_measured:
        made, warnings = make_timed(opened, calibration, options, budget, progress, own, max_drop)
        if pattern is not None:
            made = with_permutation(made, opened, opened.canonical, calibration, options, progress)
    else:
        made, warnings = _make_counted(opened, calibration, options, budget, pattern, progress)
    if calibration.source == "synthetic" and _uses_data(options):
        warnings = (MADE_UP, *warnings)
    return recorded(made, options, calibration), warnings


def _uses_data(options: PlanOptions) -> bool:
    recipe = options.chosen_recipe()
    is_sparse = options.sparse_pattern() is not None
    return is_sparse or recipe.compensation != "none" or bool(create(recipe.criterion).needs)


def recorded(plan: Plan, options: PlanOptions, calibration: Calibration) -> Plan:
    """`plan`, with how its model is refitted and trained."""
    own = {"compensation": options.chosen_recipe().compensation, "samples": calibration.samples,
           "recovery": planned_training(options, plan.recovery)}  # fmt: skip
    return plan.model_copy(update=own)


def _make_counted(
    opened: Opened,
    calibration: Calibration,
    options: PlanOptions,
    budget: Budget,
    pattern: Pattern | None,
    progress: Progress,
) -> tuple[Plan, tuple[Diagnostic, ...]]:
    if pattern is None:
        return _make_channels(opened, calibration, options, budget, progress)
    warnings: tuple[Diagnostic, ...] = (NOT_FASTER,) if options.target == "onnx" else ()
    if budget.kind == "sparsity":
        made, cut = whole_plan(opened, options, budget), opened.canonical
    else:
        asked = channel_options(options, pattern)
        made, notes = _make_channels(opened, calibration, asked, budget, progress)
        cut, warnings = stages_of(opened, made)[-1].after, (*warnings, *notes)
    made, on_layers = with_layers(made, cut, options, pattern, calibration, progress)
    return with_permutation(made, opened, cut, calibration, options, progress), (*warnings, *on_layers)


def _make_channels(
    opened: Opened, calibration: Calibration, options: PlanOptions, budget: Budget, progress: Progress
) -> tuple[Plan, tuple[Diagnostic, ...]]:
    """Statistics as far as the criterion needs them, scores, plan; and what the criterion had to say."""
    if options.chosen_recipe().structures != DEFAULT_STRUCTURES:
        return make_staged(opened, calibration, options, budget, progress)
    planner = scored(opened, opened.canonical, opened.analysis, calibration, options, progress)
    overhead = graph_bytes(opened.canonical) if budget.kind == "size-mb" else 0
    return planner.least_cut(budget, overhead=overhead), planner.notes


def graph_bytes(model: ir.Model) -> int:
    """Bytes of a model file beside its parameters: the graph, names, shapes, integers."""
    with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
        path = Path(folder, "model.onnx")
        save_model(model, path)
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
    values = (value.const_value for value in model.graph.initializers.values())
    return written - sum(t.nbytes for t in values if t is not None and t.dtype in PARAMETER_TYPES)


def replay(opened: Opened, path: PathLike, options: PlanOptions, seed: int | None) -> tuple[Plan, PlanOptions]:
    """The plan in the file, checked against the model, and the options that it leaves.

    Raises:
        PrunecError PC204: not a plan, or one that does not fit; PC205: made for another model; PC221: another target;
        PC203: there is no such criterion.
    """
    found = Plan.load(Path(path))
    if found.criterion != "none":
        create(found.criterion)
    if found.target != options.target:
        message = f"the plan is for target {found.target}, not {options.target}"
        raise PrunecError("PC221", message, where=str(path), hint=f"pass --target {found.target}")
    if found.precision not in (None, options.precision) or (found.precision is None and options.precision == MIXED):
        message = f"the plan is for {found.precision or 'one data type'}, not {options.precision or 'float32'}"
        hint = f"pass --precision {found.precision or 'int8'}"
        raise PrunecError("PC221", message, where=str(path), hint=hint)
    return checked(opened, found), as_planned(options, found, seed)


def as_planned(options: PlanOptions, plan: Plan, seed: int | None) -> PlanOptions:
    """The options of a replay: what `options` and `seed` leave open is the plan's."""
    compensation = options.compensation or (plan.compensation if options.recipe is None else None)
    return replace(
        options,
        seed=plan.seed if seed is None else seed,
        samples=options.samples or plan.samples,
        compensation=compensation,
    )
