"""Budgets of time and of quality: what the planner makes of them, beside simpler ways to spread a cut.

    python -m benchmarks.budgets speed fashion-net crepe-tiny [--speedups 1.5 2 3] [--markdown F]
    python -m benchmarks.budgets drop fashion-net crepe-tiny [--drops 0.01] [--markdown F]

speed: every way to spread a cut (`WAYS`) gets the same measured time, through the same loop of predicting, measuring
and correcting; all are refitted alike ("auto"), and judged by the model's own metric on test data. `share` is the
measured time over the dense model's, with its 95 % interval (processor time of one thread); `error` and `rank` are
those of times predicted for models left out of the fit; `models` were timed.

drop: `--max-drop` judges by the metric on the first `samples` of the test data; `unseen` is the drop on as many others
that nothing has looked at. `upper` is the confidence bound that decided.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.api.choices import Judge
from prunec.api.dropping import DropPlanner
from prunec.api.options import PlanOptions
from prunec.api.progress import silent
from prunec.api.pruning import Judged
from prunec.api.saving import dense_file
from prunec.api.statistics import cut_errors, score_context
from prunec.api.timing import TimedWidths
from prunec.cache import default_cache
from prunec.criteria import create
from prunec.diagnostics import GateError, PrunecError
from prunec.passes.compensate import Options, compensate
from prunec.passes.slice_channels import slice_channels
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan, Scope
from prunec.plan.planner import FLOORS, Planner
from prunec.verify.user_metric import load_metric

WAYS: dict[str, tuple[str, Scope]] = {
    "loss": ("obs", "loss"),
    "uniform": ("obs", "layer"),
    "global magnitude": ("l2", "global"),
    "global LAMP": ("lamp", "global"),
    "random": ("random", "layer"),
}
"""Criterion and scope. All may go as far as "loss" may: with the higher floor of "global" they would be held back."""


@dataclass
class SpeedRow:
    model: str
    asked: float
    way: str
    share: float | None
    low: float | None
    high: float | None
    predicted: float | None
    macs: float | None
    metric: str
    dense: float
    value: float | None
    models: int | None
    error: float | None
    rank: float | None
    seconds: float
    note: str


@dataclass
class DropRow:
    model: str
    allowed: float
    metric: str
    dense: float
    drop: float | None
    upper: float | None
    unseen: float | None
    samples: int
    speedup: float | None
    low: float | None
    high: float | None
    seconds: float
    note: str


class Timed:
    """A subject's planners for times, one for each way to spread a cut."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @contextlib.contextmanager
    def planner(self, way: str) -> Iterator[tuple[TimedWidths, PlanOptions]]:
        criterion, scope = WAYS[way]
        subject, opened = self.subject, self.subject.opened
        options = PlanOptions(criterion=criterion, scope=scope, seed=subject.seed, cache=default_cache())
        own = create(criterion)
        data = (opened.canonical, opened.analysis, subject.calibration)
        context = score_context(*data, own, options, silent)
        planner = Planner(
            opened.canonical, opened.analysis, own, context, scope=scope, seed=subject.seed, floor=FLOORS["loss"],
            measured=cut_errors(*data, options, silent),
        )  # fmt: skip
        with dense_file(opened.source) as dense:
            yield TimedWidths(opened, planner, dense, subject.calibration, options, silent), options

    def refitted(self, plan: Plan) -> ir.Model:
        opened, subject = self.subject.opened, self.subject
        alive = opened.analysis.alive(plan.keeps())
        cut = slice_channels(opened.canonical, opened.analysis, alive)
        how = Options(method="auto", seed=subject.seed)
        return compensate(opened.canonical, cut, opened.analysis, alive, subject.calibration, how).model


def speed_rows(subject: Subject, arguments: argparse.Namespace) -> Iterator[SpeedRow]:
    for way in arguments.ways:
        with Timed(subject).planner(way) as (planner, _):
            for asked in arguments.speedups:
                start = time.perf_counter()
                plan, note = None, ""
                try:
                    plan, _ = planner.meet(Budget.of("speedup", asked))
                except PrunecError as no:
                    note = no.diagnostic.message
                seconds = time.perf_counter() - start
                found = None if plan is None else plan.time
                yield SpeedRow(
                    model=subject.name, asked=asked, way=way,
                    share=found.share if found else None, low=found.ci95[0] if found else None,
                    high=found.ci95[1] if found else None, predicted=found.predicted if found else None,
                    macs=plan.realised.flops if plan else None, metric=subject.metric, dense=subject.dense,
                    value=subject.judge(Timed(subject).refitted(plan)) if plan else None,
                    models=found.models if found else None, error=found.error if found else None,
                    rank=found.rank_correlation if found else None, seconds=seconds, note=note,
                )  # fmt: skip


def drop_rows(subject: Subject, arguments: argparse.Namespace) -> Iterator[DropRow]:
    assert subject.found.metric is not None
    metric, count = load_metric(subject.found.metric), arguments.judged
    seen = functools.partial(metric, samples=count)
    dense = subject.numbers(seen, subject.opened.source.model)
    with Timed(subject).planner("loss") as (planner, options):
        for allowed in arguments.drops:
            start = time.perf_counter()
            judged = Judged(seen, dense)
            looking = DropPlanner(planner, Judge(subject.opened, subject.calibration, options, judged), silent)
            plan, note = None, ""
            try:
                plan, _ = looking.fastest(Budget.of("max-drop", allowed))
            except GateError as no:
                note = no.diagnostic.message
            found, drop = (None, None) if plan is None else (plan.time, plan.drop)
            unseen = None
            if plan is not None and drop is not None:
                both = functools.partial(metric, samples=2 * count)
                models = (subject.opened.source.model, Timed(subject).refitted(plan))
                whole, left = (subject.numbers(both, model)[subject.metric] for model in models)
                unseen = 2 * (whole - left) - drop.drop
            yield DropRow(
                model=subject.name, allowed=allowed, metric=subject.metric, dense=dense[subject.metric],
                drop=drop.drop if drop else None, upper=drop.upper if drop else None, unseen=unseen, samples=count,
                speedup=1 / found.share if found else None, low=1 / found.ci95[1] if found else None,
                high=1 / found.ci95[0] if found else None, seconds=time.perf_counter() - start, note=note,
            )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Budgets of time and of quality.")
    parser.add_argument("what", choices=["speed", "drop"])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--drops", type=float, nargs="+", default=[0.01])
    parser.add_argument("--judged", type=int, default=1000, help="test samples that --max-drop may look at")
    parser.add_argument("--samples", type=int, help="calibration samples (default: by the cost)")
    parser.add_argument("--test-samples", type=int, help="test samples of the metric (default: the metric's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows: list[SpeedRow] | list[DropRow] = []
    for name in arguments.models:
        subject = Subject(name, samples=arguments.samples, test_samples=arguments.test_samples, seed=arguments.seed)
        for row in speed_rows(subject, arguments) if arguments.what == "speed" else drop_rows(subject, arguments):
            print(line(row), flush=True)
            rows.append(row)  # type: ignore[arg-type]
            if arguments.markdown:
                arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
