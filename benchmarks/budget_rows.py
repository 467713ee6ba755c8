"""The rows of `budgets`: one measured choice each, and how far predictions are from what came out."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from benchmarks.budget_subject import DEFAULT, BudgetSubject
from prunec.api.contest import met
from prunec.api.dropping import DropPlanner, Trial
from prunec.api.polishing import Polisher
from prunec.api.progress import silent
from prunec.api.pruning import Judged, runner
from prunec.api.sweeping import shares
from prunec.api.timed import Point, TimedPlanner
from prunec.api.timing import random_rungs
from prunec.diagnostics import GateError, PrunecError
from prunec.plan.budget import Budget
from prunec.plan.levels import SOURCES, Source
from prunec.plan.plan import Plan
from prunec.verify.margins import Remembered
from prunec.verify.user_metric import evaluate, load_metric

POOLED = ("minilm-l6",)
"""Metrics that are no mean over samples: more of them make a harder question, so there is no second half."""


@dataclass
class Row:
    """A choice for a time. `share`: of the dense model's time, with interval; `predicted` before it was measured.

    `drop`: of `metric` on test data; `error`: of the outputs, relative and squared, on held-out calibration data;
    `macs`: left on weights that are no zeros, `weights`: that are none, of all layers; `models` were timed,
    `time_error` and `time_rank` are those of times predicted for models left out; `minutes` of planning, with what all
    budgets share.
    """

    model: str
    target: str
    way: str
    asked: float
    share: float | None = None
    low: float | None = None
    high: float | None = None
    predicted: float | None = None
    macs: float | None = None
    weights: float | None = None
    metric: str = ""
    dense: float | None = None
    drop: float | None = None
    error: float | None = None
    models: int | None = None
    time_error: float | None = None
    time_rank: float | None = None
    minutes: float | None = None
    note: str = ""


@dataclass
class DropRow:
    """The fastest choice within a drop: `drop` with its bound `upper` on the first `samples`, `unseen` on `others`.

    `tried`: every choice that was judged, the fastest first: predicted share of the time, drop, bound.
    """

    model: str
    target: str
    allowed: float
    metric: str
    samples: int
    dense: float
    drop: float | None = None
    upper: float | None = None
    unseen: float | None = None
    others: int | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    minutes: float | None = None
    tried: str = ""
    note: str = ""


@dataclass
class PolishRow:
    """A choice for a time and what swaps made of it, both measured.

    `error`: of the outputs on what swaps were chosen by; `drop` of the metric on test data. `judged`: refitted models;
    `minutes` for the swaps alone.
    """

    model: str
    target: str
    asked: float
    share: float
    polished_share: float
    error: float
    polished_error: float
    metric: str
    drop: float
    polished_drop: float
    judged: int
    minutes: float


@dataclass
class PredictionRow:
    """Additive predictions for `choices` against what came out; ranks are Spearman's, errors median relative ones.

    `losses`: the source of what is predicted, "cuts" for channels; all sources of a model get the same choices, half of
    them at random and as many of each source's own as of the others'. `loss_shown`, `loss_refitted`: of predicted
    losses to the outputs' errors of what swaps are screened by (masks, or layers solved beforehand) and of the refitted
    model; `shown_refitted`: of these two to each other; `factor`: how many times the refitted error the predicted loss
    is, in the middle, and `factor_screen` what it is for swaps; `own_error`: the refitted error of the source's own
    choices, geometric mean, at times that are predicted to be the same; `drop_rank`: of predicted losses to drops of
    the metric.
    """

    model: str
    target: str
    losses: str
    choices: int
    time_rank: float
    time_error: float
    loss_shown: float
    loss_refitted: float
    shown_refitted: float
    factor: float
    factor_screen: float
    own_error: float
    drop_rank: float
    metric: str


def speed_rows(own: BudgetSubject, way: str, speedups: Sequence[float]) -> Iterator[Row]:
    """One for every speed-up, through the loop of predicting, measuring and correcting that a plan goes through."""
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        try:
            planner = stack.enter_context(own.planner(way))
        except PrunecError as no:
            yield from (refused(own, way, asked, no) for asked in speedups)
            return
        shared = time.perf_counter() - start
        for asked in speedups:
            start = time.perf_counter()
            try:
                _, plan, point = met(planner, own.contest(way, planner), Budget.of("speedup", asked))
            except PrunecError as no:
                yield refused(own, way, asked, no)
                continue
            yield row_of(own, way, asked, plan, point, shared + time.perf_counter() - start)


def refused(own: BudgetSubject, way: str, asked: float, no: PrunecError) -> Row:
    subject = own.subject
    return Row(
        subject.name, own.target, way, asked, metric=subject.metric, dense=subject.dense, note=no.diagnostic.message
    )


def curve_rows(own: BudgetSubject, way: str, points: int) -> Iterator[Row]:
    """Times in equal ratios between the model with nothing gone and the one with all that may go."""
    start = time.perf_counter()
    with own.planner(way) as planner:
        shared = time.perf_counter() - start
        for share in shares(planner.start, planner.floor.median, points):
            start = time.perf_counter()
            budget = Budget(kind="speedup", value=float(f"{1 / share:.4g}"))
            point = planner.measure(planner.choose(share) or planner.bottom)
            plan = planner.plan(point, budget)
            yield row_of(own, way, budget.value, plan, point, shared + time.perf_counter() - start)


def row_of(own: BudgetSubject, way: str, asked: float, plan: Plan, point: Point, seconds: float) -> Row:
    assert plan.time is not None
    found, subject = plan.time, own.subject
    model = own.judge(way).model(plan)
    return Row(
        model=subject.name, target=own.target, way=way, asked=asked, share=found.share, low=found.ci95[0],
        high=found.ci95[1], predicted=point.predicted, macs=own.macs(plan), weights=own.weights(plan),
        metric=subject.metric, dense=subject.dense,
        drop=subject.dense - subject.judge(model), error=own.errors.of(model), models=found.models,
        time_error=found.error, time_rank=found.rank_correlation, minutes=seconds / 60,
        note=plan.way if plan.contest else "",
    )  # fmt: skip


def drop_row(own: BudgetSubject, allowed: float, judged: int, others: int) -> DropRow:
    """`--max-drop` as a compile does it, with the metric on the first `judged` test samples; then on `others`."""
    subject = own.subject
    assert subject.found.metric is not None
    metric = load_metric(subject.found.metric)
    seen = functools.partial(metric, samples=judged)
    answers = Remembered(runner(subject.opened.source.model, subject.threads))
    dense = evaluate(seen, answers, samples=None)
    row = DropRow(subject.name, own.target, allowed, subject.metric, judged, dense[subject.metric])
    start = time.perf_counter()
    try:
        way = "loss" if own.losses is not None else DEFAULT
        with own.planner(way) as planner:
            looking = DropPlanner(planner, own.judge(way, Judged(seen, dense, answers)), silent)
            try:
                plan, _ = looking.fastest(Budget.of("max-drop", allowed), own.contest(way, planner))
            finally:
                row.tried = told(looking.trials)
    except GateError as no:
        row.note, row.minutes = no.diagnostic.message, (time.perf_counter() - start) / 60
        return row
    row.minutes = (time.perf_counter() - start) / 60
    assert plan.time is not None and plan.drop is not None
    row.drop, row.upper, row.speedup = plan.drop.drop, plan.drop.upper, 1 / plan.time.share
    row.note = plan.way if plan.contest else ""
    row.low, row.high = 1 / plan.time.ci95[1], 1 / plan.time.ci95[0]
    everything = functools.partial(metric, samples=judged + others)
    models = (subject.opened.source.model, own.judge("loss").model(plan))
    whole, left = (subject.numbers(everything, model)[subject.metric] for model in models)
    row.unseen, row.others = unseen_drop(whole - left, plan.drop.drop, judged, others), others
    if subject.name in POOLED:
        row.unseen = whole - left
        row.note = f"{row.note} unseen: of all samples, those that were seen among them".strip()
    return row


def told(trials: Sequence[Trial]) -> str:
    """Of each choice what the search knew; – where there is no quality or no bound."""

    def one(trial: Trial) -> str:
        found = trial.quality
        upper = None if found is None else found.drop_upper
        drop, bound = (f"{value:.3g}" if value is not None else "–" for value in (found and found.drop, upper))
        return f"{trial.predicted:.3f}: {drop} ≤ {bound}"

    return "; ".join(one(trial) for trial in sorted(trials, key=lambda trial: trial.predicted))


def unseen_drop(everywhere: float, seen: float, judged: int, others: int) -> float:
    """The drop on `others` samples, from that on all and that on the `judged` ones before them; of a mean."""
    return ((judged + others) * everywhere - judged * seen) / others


def polish_rows(own: BudgetSubject, speedups: Sequence[float], generations: int) -> Iterator[PolishRow]:
    """One for every speed-up that can be met."""
    subject, judge = own.subject, own.judge("loss")
    with own.planner("loss") as planner:
        polisher = Polisher(planner, judge, subject.opened, subject.calibration, generations, subject.seed, silent)
        for asked in speedups:
            budget = Budget.of("speedup", asked)
            plan, point = planner.meet(budget)
            start = time.perf_counter()
            better = polisher.polished(plan, point, budget)
            minutes = (time.perf_counter() - start) / 60
            assert plan.time is not None and better.time is not None and better.polish is not None
            drops = [subject.dense - subject.judge(judge.model(each)) for each in (plan, better)]
            yield PolishRow(
                subject.name, own.target, asked, plan.time.share, better.time.share, better.polish.before,
                better.polish.after, subject.metric, *drops, better.polish.judged, minutes,
            )  # fmt: skip


def prediction_rows(own: BudgetSubject, choices: int) -> Iterator[PredictionRow]:
    """One for each source of losses, all about the same choices."""
    subject, judge = own.subject, own.judge("loss")
    with contextlib.ExitStack() as stack:
        sources: tuple[Source | None, ...] = (None,) if own.target == "onnx" else SOURCES
        planners = [stack.enter_context(own.planner("loss", source)) for source in sources]
        first = planners[0]
        chosen = [own_choices(planner, max(choices // 2 // len(planners), 2)) for planner in planners]
        drawn = random_rungs(first.bottom, choices // 2, np.random.default_rng(subject.seed + 1))
        tried = list(dict.fromkeys([*(rungs for one in chosen for rungs in one), *drawn]))
        times, refitted, drops = [], [], []
        for rungs in tried:
            point = first.measure(rungs)
            model = judge.model(first.describe(rungs, Budget.of("speedup", 2)))
            times.append((point.predicted, point.share.median))
            refitted.append(own.errors.of(model))
            drops.append(subject.dense - subject.judge(model))
        predicted, measured = np.array(times).T
        came_out = np.maximum(refitted, 1e-12)
        for source, planner, one in zip(sources, planners, chosen, strict=True):
            loss = np.array([planner.loss(rungs) for rungs in tried])
            shown = np.array([own.errors.of(planner.one_shot(rungs)) for rungs in tried])
            yield PredictionRow(
                model=subject.name, target=own.target, losses=source or "cuts", choices=len(tried),
                time_rank=rank(predicted, measured), time_error=float(np.median(np.abs(predicted / measured - 1))),
                loss_shown=rank(loss, shown), loss_refitted=rank(loss, came_out), shown_refitted=rank(shown, came_out),
                factor=float(np.median(loss / came_out)), factor_screen=float(np.median(shown / came_out)),
                own_error=float(np.exp(np.log([came_out[tried.index(rungs)] for rungs in one]).mean())),
                drop_rank=rank(loss, np.array(drops)), metric=subject.metric,
            )  # fmt: skip


def own_choices(planner: TimedPlanner, count: int) -> list[tuple[int, ...]]:
    """The planner's own for `count` times in equal ratios, strictly between its start and its floor."""
    low, high = planner.floor.median, planner.start
    limits = (high * (low / high) ** (step / (count + 1)) for step in range(1, count + 1))
    return [rungs for limit in limits if (rungs := planner.choose(limit)) is not None]


def rank(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation; ties count as such."""
    return float(spearmanr(one, other).statistic)
