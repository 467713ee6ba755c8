"""`prunec compile`: from a model and a budget to a package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import options as o
from prunec.cli.answer import Answer, console

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.results import Compiled, Refused


def compile(
    model: o.Model,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="OUT", help="The package; MODEL.pruned without it.")
    ] = None,
    target: o.Target = "onnx",
    pattern: o.Pattern = "auto",
    recipe: o.RecipeName = None,
    criterion: o.CriterionName = None,
    scope: o.ScopeName = None,
    sparsity: o.Sparsity = None,
    flops: o.Flops = None,
    params: o.Params = None,
    speedup: o.Speedup = None,
    latency_ms: o.LatencyMs = None,
    size_mb: o.SizeMb = None,
    calib: o.Calib = None,
    metric: o.Metric = None,
    samples: o.Samples = None,
    min_speedup: Annotated[
        float | None, typer.Option("--min-speedup", help="Fail unless it is shown to be this much faster.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Fail if quality drops by more; the budget when alone (its own unit)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of everything random; the plan's own, else 0.")
    ] = None,
    threads: o.Threads = 1,
    include: o.Include = None,
    exclude: o.Exclude = None,
    round_to: o.RoundTo = None,
    structures: o.Structures = None,
    solver: o.Solver = None,
    allocation: o.Allocation = None,
    losses: o.Losses = None,
    permute: o.Permute = None,
    finer: o.Finer = None,
    polish: o.Polish = 0,
    plan: Annotated[str | None, typer.Option("--plan", metavar="FILE", help="Replay a plan, no budget.")] = None,
    no_compensate: Annotated[bool, typer.Option("--no-compensate", help="Cut only, refit nothing.")] = False,
    recover: o.Recover = None,
    recover_minutes: o.RecoverMinutes = None,
    recover_soup: o.RecoverSoup = None,
    recover_precision: o.RecoverPrecision = None,
    steps: o.Steps = None,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Time nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan, print, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the package that is there.")] = False,
    dump: Annotated[
        str | None, typer.Option("--dump", metavar="DIR", help="Keep canonical, masked, cut and final model.")
    ] = None,
    no_build: o.NoBuild = False,
    shape_range: o.ShapeRange = None,
    precision: o.Precision = None,
    rounding: o.Rounding = None,
    products: o.Products = None,
    tune: o.Tune = "none",
    weights: o.Weights = None,
    relaxed_simd: o.RelaxedSimd = False,
    storage: o.Storage = "fp32",
    demo: o.Demo = False,
    demo_labels: o.DemoLabels = None,
    demo_vocabulary: o.DemoVocabulary = None,
    no_cache: o.NoCache = False,
    input_shape: o.InputShape = None,
    json: o.Json = False,
) -> Answer:
    """Prune MODEL and write a package: the smaller model, the plan, the proof and the measurements.

    prunec compile model.onnx --flops 0.5 --calib images.npz -o model.pruned
    """
    from prunec.api import compilation
    from prunec.api.results import Refused
    from prunec.cli.progress import shown

    try:
        with shown() as progress:
            found = compilation.compile(
                model, output=output, target=target, pattern=pattern, recipe=recipe, criterion=criterion, scope=scope,
                sparsity=sparsity, flops=flops, params=params, speedup=speedup, latency_ms=latency_ms, size_mb=size_mb,
                calib=calib, metric=metric, samples=samples,
                min_speedup=min_speedup, max_drop=max_drop, seed=seed, threads=threads, include=include or (),
                exclude=exclude or (), round_to=round_to, structures=structures, solver=solver, permute=permute,
                allocation=allocation, losses=losses, finer=finer, polish=polish, plan=plan,
                compensate=not no_compensate,
                recover=recover, recover_minutes=recover_minutes, recover_soup=recover_soup,
                recover_precision=recover_precision, steps=steps,
                measure=not no_measure, dry_run=dry_run,
                force=force, dump=dump, cache=not no_cache, progress=progress,
                input_shapes=o.input_shape_sets(input_shape), build=not no_build,
                shape_ranges=o.shape_ranges(shape_range),
                precision=precision, rounding=rounding, products=products, tune=tune, weights=weights,
                relaxed_simd=relaxed_simd,
                storage=storage, demo=demo, demo_labels=demo_labels, demo_vocabulary=demo_vocabulary,
            )  # fmt: skip
    except Refused as no:
        return _refused(no)
    return Answer(found.to_json(), lambda out: show(out, found))


def _refused(no: Refused) -> Answer:
    """Everything that was found, and every gate that said no."""
    from prunec.cli.run import error_document, show_diagnostic

    def explain(out: Console) -> None:
        show(out, no.compiled)
        out.file.flush()

    for refusal in no.refusals:
        show_diagnostic("error", refusal.diagnostic)
    console(stderr=True).print("nothing was written")
    return Answer({**error_document(no.diagnostic, 1), **no.compiled.to_json()}, explain, exit_code=1)


def show(out: Console, found: Compiled) -> None:
    """Before and after, the proof in one line, and where the package is."""
    from rich.text import Text

    from prunec.api.saving import report_data
    from prunec.cli.plan import compared, show_plan
    from prunec.cli.run import show_warnings
    from prunec.report import units
    from prunec.report.console import (
        print_compensation,
        print_patterns,
        print_recovery,
        print_summary,
        print_tensorrt,
    )

    show_warnings(found.warnings)
    if found.verification is None:
        show_plan(out, found.plan)
        return
    data = report_data(found, ())
    print_summary(out, data)
    if found.plan.contest:
        out.print(Text(f"{compared(found.plan.contest, found.plan.allocation, found.plan.scope)}."))
    print_compensation(out, data.verification)
    print_recovery(out, data.verification)
    print_patterns(out, data.verification)
    print_tensorrt(out, data.verification)
    exactness = found.verification.exactness
    if exactness is not None and (exactness.groups_checked or exactness.blocks_checked):
        proofs = [trial.float64 for trial in found.proof if trial.float64 is not None]
        double = f", {units.error(max(proofs))} in float64" if proofs else ""
        error = f"{units.error(exactness.float32_max_rel or 0.0)} in float32{double}"
        blocks = f" and {exactness.blocks_checked} blocks" if exactness.blocks_checked else ""
        what = f"The cut of {exactness.groups_checked} groups{blocks} is exact"
        out.print(Text(f"{what}: masked and cut differ by {error}."))
    if found.out is not None:
        out.print(Text(f"Package: {found.out}"), soft_wrap=True)
