"""`prunec plan`: decide which channels go, as a file that can be read, edited and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import options as o
from prunec.cli.answer import Answer
from prunec.diagnostics import Interrupted, PrunecError

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.plan.curve import Curve
    from prunec.plan.plan import Plan


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
    permute: o.Permute = None,
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

    if pick is not None or source is not None:
        return _picked(model, pick, source, output)
    if sweep is not None:
        decided = {"sparsity": sparsity, "flops": flops, "params": params, "speedup": speedup,
                   "latency-ms": latency_ms, "size-mb": size_mb, "max-drop": max_drop, "structures": structures,
                   "allocation": allocation, "permute": permute}  # fmt: skip
        _refuse_beside_sweep(decided)
        if output is None:
            hint = "add -o FOLDER"
            raise PrunecError("PC220", "a sweep needs a folder for its points", where="--sweep", hint=hint)
        from prunec.api.sweeping import sweep as swept

        try:
            with shown() as progress:
                curve, warnings = swept(
                    model, sweep, output=output, target=target, pattern=pattern, solver=solver, recipe=recipe,
                    criterion=criterion, scope=scope,
                    calib=calib, metric=metric, samples=samples, seed=seed, threads=threads, include=include or (),
                    exclude=exclude or (), round_to=round_to, cache=not no_cache,
                    input_shapes=o.input_shapes(input_shape), progress=progress,
                )  # fmt: skip
        except KeyboardInterrupt:
            message = f"interrupted; the points that are done are in {output}"
            raise Interrupted("PC618", message, hint="the same command goes on with the others") from None
        show_warnings(warnings)
        return Answer(curve.to_json(), lambda out: show_curve(out, curve))
    with shown() as progress:
        found = planning.plan(
            model, output=output, target=target, pattern=pattern, recipe=recipe, criterion=criterion, scope=scope,
            sparsity=sparsity, flops=flops, params=params, speedup=speedup, latency_ms=latency_ms, size_mb=size_mb,
            max_drop=max_drop, metric=metric, calib=calib, samples=samples, seed=seed, threads=threads,
            include=include or (), exclude=exclude or (), round_to=round_to, structures=structures, solver=solver,
            allocation=allocation, permute=permute, cache=not no_cache, input_shapes=o.input_shapes(input_shape),
            progress=progress,
        )  # fmt: skip
    show_warnings(found.warnings)
    return Answer(found.to_json(), lambda out: show_plan(out, found.plan))


def _picked(model: str, number: int | None, folder: str | None, output: str | None) -> Answer:
    from prunec.api.sweeping import picked

    if number is None or folder is None:
        message = "--pick N and --from FOLDER go together"
        raise PrunecError("PC220", message, hint="prunec plan MODEL --pick 3 --from FOLDER")
    plan = picked(model, folder, number, output=output).pick(number)
    return Answer(plan.model_dump(mode="json"), lambda out: show_plan(out, plan))


def _refuse_beside_sweep(decided: Mapping[str, object]) -> None:
    given = [f"--{name}" for name, value in decided.items() if value is not None]
    if given:
        message = f"a sweep goes through all times: {', '.join(given)} cannot be given beside it"
        raise PrunecError("PC220", message, where="--sweep", hint="leave one of the two out")


def show_curve(out: Console, curve: Curve) -> None:
    """A line for every point."""
    from rich.table import Table
    from rich.text import Text

    from prunec.report import units

    table = Table("point", title=Text("quality against speed"), title_justify="left")
    for heading in ("speed-up", "95 % interval", "time", "drop", "at most (90 %)", "MACs left"):
        table.add_column(heading, justify="right")
    best = curve.best()
    for number, plan in sorted(curve.plans.items()):
        assert plan.time is not None and plan.drop is not None
        share, (low, high) = plan.time.share, plan.time.ci95
        table.add_row(
            Text(f"{number}"), units.factor(1 / share), f"{1 / high:.2f} to {1 / low:.2f}",
            units.ms(share * plan.time.dense_ms), units.number(plan.drop.drop),
            "–" if plan.drop.upper is None else units.number(plan.drop.upper), units.share(plan.realised.flops),
            style=None if number in best else "dim",
        )  # fmt: skip
    out.print(table)
    out.print(Text(f"Plans and {curve.folder}/curve.html are written; prunec compile MODEL --plan compiles one."))


def show_plan(out: Console, plan: Plan) -> None:
    """A table of the groups, and what remains."""
    from rich.text import Text

    from prunec.report import units
    from prunec.report.console import print_blocks, print_groups, print_layers

    document = plan.model_dump(mode="json")
    print_blocks(out, document)
    print_groups(out, document)
    print_layers(out, document)
    remains = f"{units.share(plan.realised.params)} of the parameters, {units.share(plan.realised.flops)} of the MACs"
    out.print(Text(f"Remains: {remains}; {units.share(plan.realised.sparsity)} of the prunable weights go."))
    if plan.time is not None:
        low, high = plan.time.ci95
        time = f"{units.share(plan.time.share)} of the dense model's time (95 % interval {units.share(low)} to "
        time += f"{units.share(high)}), {plan.time.share * plan.time.dense_ms:.3g} ms; predicted were "
        out.print(Text(f"Measured: {time}{units.share(plan.time.predicted)}, from {plan.time.models} models."))
    if plan.drop is not None:
        upper = "" if plan.drop.upper is None else f", at most {plan.drop.upper:.3g} on other data (90 %)"
        out.print(Text(f"Judged: {plan.drop.metric} drops by {plan.drop.drop:.3g}{upper}."))
    for note in plan.notes:
        out.print(Text(f"note: {note}"))
