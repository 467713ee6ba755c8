"""`prunec plan`: decide which channels go, as a file that can be read, edited and replayed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import options as o
from prunec.cli.answer import Answer

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.plan.plan import DropPlan, EntrantPlan, Plan


def plan(
    model: o.Model,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the plan here, as JSON; with --sweep a folder."),
    ] = None,
    sweep: Annotated[
        int | None,
        typer.Option("--sweep", metavar="N", help="N plans from mild to fast, each measured and judged; no budget."),
    ] = None,
    pick: Annotated[
        int | None, typer.Option("--pick", metavar="N", help="Point N of the curve that --from names.")
    ] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="FOLDER", help="What --sweep wrote.")] = None,
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
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", help="As fast as it can be with quality at most this much lower.")
    ] = None,
    calib: o.Calib = None,
    metric: o.Metric = None,
    samples: o.Samples = None,
    seed: o.Seed = 0,
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
    precision: o.Precision = None,
    no_cache: o.NoCache = False,
    input_shape: o.InputShape = None,
    json: o.Json = False,
) -> Answer:
    """Decide which channels of MODEL go. `prunec compile MODEL --plan FILE` does what the plan says.

    prunec plan model.onnx --flops 0.5 -o plan.json

    prunec plan model.onnx --sweep 6 -o curve; prunec plan model.onnx --pick 3 --from curve -o plan.json
    """
    from prunec.api import planning
    from prunec.cli.progress import shown
    from prunec.cli.run import show_warnings

    if sweep is not None or pick is not None or source is not None:
        from prunec.cli import curve

        curve.refuse_beside(
            {"sparsity": sparsity, "flops": flops, "params": params, "speedup": speedup, "latency-ms": latency_ms,
             "size-mb": size_mb, "max-drop": max_drop, "structures": structures, "allocation": allocation,
             "losses": losses, "permute": permute, "finer": finer, "polish": polish or None}
        )  # fmt: skip
        if sweep is None:
            return curve.pick(model, pick, source, output, show_plan)
        curve.refuse_beside({"pick": pick, "from": source})
        return curve.sweep(
            model, sweep, output, target=target, pattern=pattern, solver=solver, recipe=recipe, criterion=criterion,
            scope=scope, calib=calib, metric=metric, samples=samples, seed=seed, threads=threads,
            include=include or (), exclude=exclude or (), round_to=round_to, precision=precision,
            cache=not no_cache, input_shapes=o.input_shapes(input_shape),
        )  # fmt: skip
    start = time.perf_counter()
    with shown() as progress:
        found = planning.plan(
            model, output=output, target=target, pattern=pattern, recipe=recipe, criterion=criterion, scope=scope,
            sparsity=sparsity, flops=flops, params=params, speedup=speedup, latency_ms=latency_ms, size_mb=size_mb,
            max_drop=max_drop, metric=metric, calib=calib, samples=samples, seed=seed, threads=threads,
            include=include or (), exclude=exclude or (), round_to=round_to, structures=structures, solver=solver,
            allocation=allocation, losses=losses, permute=permute, finer=finer, polish=polish, precision=precision,
            cache=not no_cache,
            input_shapes=o.input_shapes(input_shape), progress=progress,
        )  # fmt: skip
    show_warnings(found.warnings)
    seconds = time.perf_counter() - start
    return Answer(found.to_json(), lambda out: show_plan(out, found.plan, seconds))


def drops_by(drop: DropPlan) -> str:
    """What was judged of a plan, with its bound."""
    upper = "" if drop.upper is None else f", at most {drop.upper:.3g} on other data (90 %)"
    return f"{drop.metric} drops by {drop.drop:.3g}{upper}"


def compared(contest: Sequence[EntrantPlan], allocation: str | None, scope: str | None) -> str:
    """Ways to spread what goes at one time, the best one first, and which was taken in the end, in a sentence."""
    from prunec.report import units

    def told(one: EntrantPlan) -> str:
        error = "not finite" if one.error is None else f"{one.error:.3g}"
        return f"{one.way} {error} at {units.share(one.share)}"

    found = sorted(contest, key=lambda one: float("inf") if one.error is None else one.error)
    how = "squared error of the solved model's outputs on held-out data"
    when = f"within a predicted {units.share(contest[0].share)} of the dense model's time"
    taken = f"Widths are chosen by scope {scope}" if allocation is None else f"Zeros are spread by {allocation}"
    return f"{taken}. Compared {when}, {how}, least first: {', '.join(map(told, found))}"


def show_plan(out: Console, plan: Plan, seconds: float | None = None) -> None:
    """A table of the groups, and what remains; how long a plan that was measured took, where that is known."""
    from rich.text import Text

    from prunec.report import units
    from prunec.report.console import print_blocks, print_groups, print_layers

    document = plan.model_dump(mode="json")
    print_blocks(out, document)
    print_groups(out, document)
    print_layers(out, document)
    sparse = sum(layer.level > 0 for layer in plan.layers)
    left = plan.realised
    if plan.layers and left.params == left.flops == 1:
        out.print(Text(f"Remains: every channel; {sparse} of {len(plan.layers)} layers get zeros."))
    else:
        remains = f"{units.share(left.params)} of the parameters, {units.share(left.flops)} of the MACs"
        more = f" {sparse} of {len(plan.layers)} layers get zeros." if plan.layers else ""
        out.print(Text(f"Remains: {remains}; {units.share(left.sparsity)} of the prunable weights go.{more}"))
    if plan.time is not None:
        took = f"{units.share(plan.time.share)} of the dense model's time"
        took_ms = f"{plan.time.share * plan.time.dense_ms:.3g} ms"
        if plan.time.modelled:
            out.print(Text(f"Modelled for {plan.time.machine}, not measured: {took}, {took_ms}."))
        else:
            took += " (95 % interval " + " to ".join(map(units.share, plan.time.ci95)) + ")"
            predicted = f"predicted were {units.share(plan.time.predicted)}, from {plan.time.models} models"
            out.print(Text(f"Measured: {took}, {took_ms}; {predicted}."))
        if seconds is not None:
            out.print(Text(f"Planned in {units.duration(seconds)}."))
    if plan.drop is not None:
        out.print(Text(f"Judged: {drops_by(plan.drop)}."))
    if plan.contest:
        out.print(Text(f"{compared(plan.contest, plan.allocation, plan.scope)}."))
    if plan.polish is not None:
        before, after = (units.error(error) for error in (plan.polish.before, plan.polish.after))
        more = f", {plan.polish.assembled} put together from solved layers" if plan.polish.assembled else ""
        out.print(
            Text(f"Polished: relative squared error {before} → {after}, {plan.polish.judged} models judged{more}.")
        )
    for note in plan.notes:
        out.print(Text(f"note: {note}"))
