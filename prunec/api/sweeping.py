"""`plan --sweep`: a curve of quality against measured time, every point a plan that can be compiled.

    times from the dense model's to the narrowest one's, in equal steps of ratio
    each: the choice of least loss for that time → cut, refit, judge → measure → point-N.json

A sweep that was interrupted goes on in its folder with the points that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunec.api.choices import Judge, with_drop
from prunec.api.opening import InputShapes, Model, Opened, PathLike, open_model
from prunec.api.options import PlanOptions
from prunec.api.planning import open_data, recorded
from prunec.api.progress import Progress, silent
from prunec.api.pruning import judge_dense
from prunec.api.quantising import check_planned_precision
from prunec.api.timed_planning import modelled_note, timed_planner
from prunec.api.watches import timed_machine
from prunec.cache import default_cache
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.package.errors import os_errors
from prunec.plan.budget import Budget
from prunec.plan.curve import CURVE, Curve, Question
from prunec.report.curve import PAGE, render_curve
from prunec.verify.user_metric import load_metric

MOST = 40


def sweep(
    model: Model,
    points: int,
    *,
    output: PathLike,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    target: str = "onnx",
    pattern: str = "auto",
    solver: str | None = None,
    recipe: str | Path | None = None,
    criterion: str | None = None,
    scope: str | None = None,
    calib: Any = None,
    metric: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    round_to: int | None = None,
    precision: str | None = None,
    cache: bool = True,
    input_shapes: InputShapes | None = None,
    progress: Progress = silent,
) -> tuple[Curve, tuple[Diagnostic, ...]]:
    """`points` plans from mild to as fast as it can be, each measured and judged, in the folder `output`.

    Beside the plans lie `curve.json` and `curve.html`. Points that are there already are kept.

    Raises:
        PrunecError PC208: no number of points; PC230: a target or structures that are not timed; PC232: the folder
        holds a curve of something else; PC207: nothing may go; and what `plan` raises.
    """
    if not 2 <= points <= MOST:
        hint = f"from 2 to {MOST}"
        raise PrunecError("PC208", f"{points} is not a number of points", where="--sweep", hint=hint)
    options = PlanOptions(
        target=target, precision=precision, pattern=pattern, solver=solver, recipe=recipe, criterion=criterion,
        scope=scope, calib=calib, samples=samples, seed=seed, threads=threads, include=include, exclude=exclude,
        round_to=round_to, input_shapes=input_shapes, cache=default_cache() if cache else None,
    )  # fmt: skip
    options.check()
    options.check_measured("sweep")
    check_planned_precision(options, None)
    judged_by = None if metric is None else load_metric(metric)
    progress("reading the model", 0, 0)
    opened = open_model(model, input_shapes, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes)
    folder = Path(output)
    given = {"pattern": pattern, "solver": solver, "recipe": recipe, "criterion": criterion, "scope": scope,
             "samples": samples, "seed": seed,
             "precision": precision,
             "include": ",".join(include), "exclude": ",".join(exclude), "round-to": round_to, "metric": metric,
             "calib": calib if isinstance(calib, str | Path) else None}  # fmt: skip
    with os_errors(folder):
        question = _question(opened, points, options, given)
        known = _known(folder, question)
        if known is not None and known.is_whole:
            said = () if known.modelled_for is None else (modelled_note(known.modelled_for),)
            return known, (*opened.warnings, *said, *_not_faster(known))
        own = judge_dense(opened, judged_by, threads, progress)
        calibration = open_data(opened, options)
        with timed_planner(opened, calibration, options, progress) as (timed, notes):
            curve = known or Curve.begin(folder, question, shares(timed.start, timed.floor.median, points))
            judge = Judge(opened, calibration, options, own)
            for number, share in enumerate(curve.shares, 1):
                progress("points of the curve", number - 1, points)
                if number in curve.plans:
                    continue
                budget = Budget(kind="speedup", value=float(f"{1 / share:.4g}"))
                rungs = timed.choose(share) or timed.bottom
                plan = timed.plan(timed.measure(rungs), budget)
                quality = judge.quality(plan)
                if quality is None:
                    raise PrunecError(
                        "PC233", "no quality was found on this data, so there is no curve", where="--calib"
                    )
                curve.add(number, recorded(with_drop(plan, quality, points), options, calibration))
            progress("points of the curve", points, points)
        (folder / PAGE).write_text(render_curve(opened.source.path.name, curve), encoding="utf-8")
    return curve, (*opened.warnings, *calibration.warnings, *notes, *_not_faster(curve))


def picked(model: Model, folder: PathLike, number: int, *, output: PathLike | None = None) -> Curve:
    """The curve in `folder`, whose point `number` is there and about `model`; `output` is where to write its plan.

    Raises:
        PrunecError PC232: no curve, or no such point; PC205: of another model.
    """
    curve = Curve.load(Path(folder))
    plan = curve.pick(number)
    sha256 = open_model(model).source.sha256
    if sha256 != curve.question.source_sha256:
        hint = "sweep this model, or give the one that was swept"
        raise PrunecError("PC205", "the curve is of another model", where=str(folder), hint=hint)
    if output is not None:
        with os_errors(Path(output)):
            plan.save(Path(output))
    return curve


def shares(start: float, floor: float, points: int) -> list[float]:
    """Shares of the dense time in equal ratios, from `start` on without it; the last one is the narrowest model's."""
    return [round(float(share), 6) for share in np.geomspace(start, min(floor, 0.999 * start), points + 1)[1:]]


def _not_faster(curve: Curve) -> Iterator[Diagnostic]:
    """One for every point whose time is not shown to be less than the dense model's."""
    for number, plan in sorted(curve.plans.items()):
        if plan.time is not None and plan.time.ci95[1] >= 1:
            low, high = (f"{share:.1%}" for share in plan.time.ci95)
            message = f"point {number} takes {low} to {high} of the dense model's time: nothing shows that it is faster"
            yield Diagnostic("PC236", message, where="--sweep", hint="take a faster one, or sweep on a quiet machine")


def _question(opened: Opened, points: int, options: PlanOptions, given: Mapping[str, object]) -> Question:
    own = {name: str(value) for name, value in given.items() if value not in (None, "")}
    return Question(
        source_sha256=opened.source.sha256, target=options.target, points=points, threads=options.threads,
        machine=timed_machine(options), options=own,
    )  # fmt: skip


def _known(folder: Path, question: Question) -> Curve | None:
    """What an earlier sweep left in `folder`."""
    if not (folder / CURVE).exists():
        return None
    found = Curve.load(folder)
    if found.question != question:
        was, now = found.question.model_dump(), question.model_dump()
        other = ", ".join(name.replace("source_sha256", "model") for name in was if was[name] != now[name])
        message = f"the folder holds a curve of something else: other {other}"
        raise PrunecError("PC232", message, where=str(folder), hint="name another folder with -o, or remove this one")
    return found
