"""`prunec plan --sweep` and `--pick`: a curve of plans from mild to fast, and one of its points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prunec.cli.answer import Answer
from prunec.diagnostics import Interrupted, PrunecError

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.plan.curve import Curve
    from prunec.plan.plan import Plan


def refuse_beside(given: Mapping[str, object]) -> None:
    """Refuse options about a budget, which a curve has none of. PrunecError PC220."""
    names = [f"--{name}" for name, value in given.items() if value is not None]
    if names:
        message = f"a curve goes through all times: {', '.join(names)} cannot be given beside it"
        raise PrunecError("PC220", message, where="--sweep", hint="leave one of the two out")


def sweep(model: str, points: int, folder: str | None, **options: Any) -> Answer:
    """The curve in `folder`; `options` are those of `api.sweeping.sweep`."""
    from prunec.api import sweeping
    from prunec.cli.progress import shown
    from prunec.cli.run import Terminated, show_warnings

    if folder is None:
        raise PrunecError("PC220", "a sweep needs a folder for its points", where="--sweep", hint="add -o FOLDER")
    try:
        with shown() as progress:
            found, warnings = sweeping.sweep(model, points, output=folder, progress=progress, **options)
    except KeyboardInterrupt:
        message = f"interrupted; the points that are done are in {folder}"
        raise Interrupted("PC618", message, hint="the same command goes on with the others") from None
    except Terminated as ended:
        ended.kept = f"the points that are done are in {folder}, the same command goes on with the others"
        raise
    show_warnings(warnings)
    return Answer(found.to_json(), lambda out: show_curve(out, found, model))


def pick(
    model: str, number: int | None, folder: str | None, output: str | None, show: Callable[[Console, Plan], None]
) -> Answer:
    """One point of the curve in `folder`; `output` is where to write its plan."""
    from prunec.api.sweeping import picked

    if number is None or folder is None:
        message = "--pick N and --from FOLDER go together"
        raise PrunecError("PC220", message, hint="prunec plan MODEL --pick 3 --from FOLDER")
    plan = picked(model, folder, number, output=output).pick(number)
    return Answer(plan.model_dump(mode="json"), lambda out: show(out, plan))


def show_curve(out: Console, curve: Curve, model: str) -> None:
    """A line for every point."""
    from rich.table import Table
    from rich.text import Text

    from prunec.report import units

    metrics = {plan.drop.metric for plan in curve.plans.values() if plan.drop is not None}
    machine = curve.modelled_for
    title = f"{', '.join(sorted(metrics)) or 'quality'} against speed"
    title += "" if machine is None else f", modelled for {machine}: nothing was measured"
    table = Table("point", title=Text(title), title_justify="left")
    times = ("speed-up", "95 % interval", "time") if machine is None else ("modelled speed-up", "modelled time")
    for heading in (*times, "drop", "at most (90 %)", "zeros" if curve.is_sparse else "MACs left"):
        table.add_column(heading, justify="right")
    best = curve.best()
    for number, plan in sorted(curve.plans.items()):
        assert plan.time is not None and plan.drop is not None
        share, (low, high) = plan.time.share, plan.time.ci95
        interval = [f"{1 / high:.2f} to {1 / low:.2f}"] if machine is None else []
        table.add_row(
            Text(f"{number}"), units.factor(1 / share), *interval,
            units.ms(share * plan.time.dense_ms), units.number(plan.drop.drop),
            "–" if plan.drop.upper is None else units.number(plan.drop.upper),
            units.share(plan.level or 0.0) if curve.is_sparse else units.share(plan.realised.flops),
            style=None if number in best else "dim",
        )  # fmt: skip
    out.print(table)
    out.print(
        Text(f"Plans and {curve.folder}/curve.html are written. One of them, with the same --calib and --metric:")
    )
    out.print(Text(f"prunec compile {model} --plan {curve.folder}/point-{max(best, default=1)}.json"))
