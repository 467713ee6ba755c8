"""Ways to spread zeros beside each other at one predicted time, judged on data that nothing was chosen by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from benchmarks.budget_subject import DEFAULT, ZEROS, BudgetSubject
from prunec.api.contest import CLEARLY
from prunec.backends.onnx.session import make_session, run
from prunec.frontend.calibration import open_calibration
from prunec.plan.budget import Budget

DRAWS = 2000
"""Of the bootstrap."""


@dataclass
class BesideRow:
    """One way. `share`: measured, with interval; `error`: squared, on held-out data, fewer samples than a compile's.

    `taken`: the way that a compile prefers by such errors, were it asked at this predicted time. `unseen`: the error on
    `samples` of another draw (those of it that would be fitted to); `over`: that over the unseen error of the way that
    is taken, with its 95 % interval (bootstrap of paired samples); `drop` of the metric on test data.
    """

    model: str
    target: str
    asked: float
    way: str
    taken: str
    predicted: float
    share: float
    low: float
    high: float
    weights: float
    error: float
    unseen: float
    over: float
    over_low: float
    over_high: float
    samples: int
    metric: str
    dense: float
    drop: float


def beside_rows(own: BudgetSubject, asked: float, unseen: int) -> Iterator[BesideRow]:
    """Every way at the time that `--speedup` asks for. PrunecError as planners have it."""
    subject = own.subject
    with own.planner(DEFAULT) as first:
        budget = Budget.of("speedup", asked)
        limit = budget.time_limit(first.dense_ms)
        planners = {"loss": first, **{way: first.spread_by(way) for way in ZEROS.values() if way != "loss"}}
        chosen = {way: planner.choose(limit) or planner.bottom for way, planner in planners.items()}
        predicted = {way: planners[way].predict(rungs) for way, rungs in chosen.items()}
        points = {way: planners[way].measure(rungs) for way, rungs in chosen.items()}
        plans = {way: planners[way].describe(rungs, budget) for way, rungs in chosen.items()}
    models = {way: own.judge(DEFAULT).model(plan) for way, plan in plans.items()}
    errors = {way: own.errors.of(model) for way, model in models.items()}
    compared = {way: errors[way] for way in ("loss", *first.other_ways)}
    best = min(compared, key=lambda way: compared[way])
    taken = best if errors[best] < CLEARLY * errors["loss"] else "loss"
    apart = unseen_errors(own, models, unseen)
    drawn = np.random.default_rng(subject.seed).integers(0, len(apart[taken]), (DRAWS, len(apart[taken])))
    for way, point in points.items():
        ratios = apart[way][drawn].sum(1) / apart[taken][drawn].sum(1)
        low, high = np.quantile(ratios, (0.025, 0.975))
        yield BesideRow(
            model=subject.name, target=own.target, asked=asked, way=way, taken="taken" if way == taken else "",
            predicted=predicted[way], share=point.share.median, low=point.share.ci95[0], high=point.share.ci95[1],
            weights=own.weights(plans[way]), error=errors[way], unseen=float(apart[way].sum()),
            over=float(apart[way].sum() / apart[taken].sum()), over_low=float(low), over_high=float(high),
            samples=len(apart[way]), metric=subject.metric, dense=subject.dense,
            drop=subject.dense - subject.judge(models[way]),
        )  # fmt: skip


def unseen_errors(own: BudgetSubject, models: dict[str, ir.Model], samples: int) -> dict[str, np.ndarray]:
    """What each sample of another draw adds to the squared error of the outputs, float64 [samples], by model."""
    subject, canonical = own.subject, own.subject.opened.canonical
    calibration = open_calibration(
        subject.found.calib, canonical, samples=samples, seed=subject.seed + 1, demanded=True
    )
    batches = [{name: array.copy() for name, array in feeds.items()} for feeds in calibration.fit()]
    reference = _answers(canonical, batches)
    sums = [sum(float(np.square(one[name], dtype=np.float64).sum()) for one in reference) for name in reference[0]]
    energy = [whole or 1.0 for whole in sums]
    rows = [len(next(iter(feeds.values()))) for feeds in batches]
    return {way: _apart(reference, _answers(model, batches), energy, rows) for way, model in models.items()}


def _answers(model: ir.Model, batches: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    session = make_session(model, threads=1)
    return [run(session, feeds) for feeds in batches]


def _apart(
    wanted: Sequence[dict[str, np.ndarray]],
    found: Sequence[dict[str, np.ndarray]],
    energy: Sequence[float],
    batches: Sequence[int],
) -> np.ndarray:
    """By sample where every output has as many rows as the batch, else by batch; the outputs' mean."""
    parts = []
    for y, other, size in zip(wanted, found, batches, strict=True):
        rows = size if all(array.ndim and len(array) == size for array in y.values()) else 1
        sums = [
            np.square(y[name].astype(np.float64) - other[name]).reshape(rows, -1).sum(1) / whole
            for name, whole in zip(y, energy, strict=True)
        ]
        parts.append(np.mean(sums, axis=0))
    return np.concatenate(parts)
