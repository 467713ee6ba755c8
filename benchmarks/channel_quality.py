"""Quality against the share of channels cut, with and without each compensation (speed: benchmarks.channel_speed).

    python -m benchmarks.channel_quality ocr-rec crepe-full [--ratios 0.1 0.2 0.3 0.5] [--scopes layer loss]
        [--samples N] [--markdown F]

For every zoo model and ratio: cut that share of every free group, rounded to the target's channel multiple, by plain
magnitude (L1) and by the exact saliency (OBS); compensate the OBS cut by nothing, by biases, by least squares, and by
whatever held-out data prefers (auto). `--criteria` compensates the cuts of other criteria too, `--plain` says which
are cut only. Scope "layer" is that share of every group; the other `--scopes` get the multiply-accumulates that it left
as their budget, so all rows of a ratio cost the same or less. The model's own metric on test data that calibration
never saw. Deterministic.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.api.statistics import cut_samples
from prunec.criteria import ScoreContext, create
from prunec.graph.cost import model_macs, parameter_count
from prunec.passes.compensate import Compensated, Method, Options, compensate
from prunec.passes.slice_channels import slice_channels
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan, Scope
from prunec.plan.planner import Planner
from prunec.statistics import collect
from prunec.statistics.cut_errors import CutErrors


@dataclass
class Row:
    model: str
    channels_cut: float
    scope: str
    criterion: str
    compensation: str
    metric: str
    dense: float
    value: float
    params: float
    macs: float
    held_out_error: float | None
    seconds: float


class Scored:
    """A subject with the statistics that score its channels."""

    def __init__(self, subject: Subject) -> None:
        self.subject, opened = subject, subject.opened
        self.statistics = collect(
            opened.canonical, opened.analysis, subject.calibration, create("obs").needs,
            threads=subject.threads, seed=subject.seed,
        )  # fmt: skip

    def alive(self, criterion: str, ratio: float, scope: Scope) -> np.ndarray:
        """The share of every group, or what `scope` makes of the multiply-accumulates which that leaves."""
        uniform = self._plan(criterion, Budget.of("channels", ratio), "layer")
        plan = uniform if scope == "layer" else self._plan(criterion, Budget.of("flops", uniform.realised.flops), scope)
        return self.subject.opened.analysis.alive(plan.keeps())

    def compensated(self, alive: np.ndarray, method: Method) -> Compensated:
        """Cut, and refitted on the subject's data."""
        opened, subject = self.subject.opened, self.subject
        cut = slice_channels(opened.canonical, opened.analysis, alive)
        options = Options(method=method, seed=subject.seed)
        return compensate(opened.canonical, cut, opened.analysis, alive, subject.calibration, options)

    def _plan(self, criterion: str, budget: Budget, scope: Scope) -> Plan:
        model, analysis, seed = self.subject.opened.canonical, self.subject.opened.analysis, self.subject.seed
        context = ScoreContext(model, analysis, self.statistics, seed)
        measured = self.measured if scope == "loss" else None
        planner = Planner(model, analysis, create(criterion), context, scope=scope, seed=seed, measured=measured)
        return planner.least_cut(budget)

    @cached_property
    def measured(self) -> CutErrors:
        subject = self.subject
        model, analysis, data = subject.opened.canonical, subject.opened.analysis, subject.calibration
        return CutErrors(model, analysis, data, cut_samples(model, analysis, data), threads=subject.threads)


def rows(scored: Scored, ratio: float, arguments: argparse.Namespace) -> list[Row]:
    subject = scored.subject
    opened = subject.opened
    result: list[Row] = []
    plain = [name for name in arguments.plain if name not in arguments.criteria]
    chosen = [
        *(("layer", name, ["none"]) for name in plain),
        *((scope, name, arguments.methods) for name in arguments.criteria for scope in arguments.scopes),
    ]
    for scope, criterion, methods in chosen:
        alive = scored.alive(criterion, ratio, scope)
        for method in methods:
            start = time.perf_counter()
            refitted = None if method == "none" else scored.compensated(alive, method)
            seconds = time.perf_counter() - start
            model = slice_channels(opened.canonical, opened.analysis, alive) if refitted is None else refitted.model
            row = Row(
                model=subject.name,
                channels_cut=ratio,
                scope=scope,
                criterion=criterion,
                compensation=method,
                metric=subject.metric,
                dense=subject.dense,
                value=subject.judge(model),
                params=parameter_count(model) / parameter_count(opened.canonical),
                macs=model_macs(model) / model_macs(opened.canonical),
                held_out_error=None if refitted is None else refitted.error_chosen,
                seconds=seconds,
            )
            print(line(row), flush=True)
            result.append(row)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="Quality against the share of channels cut.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument("--samples", type=int, help="calibration samples, a fifth held out (default: by the cost)")
    parser.add_argument("--test-samples", type=int, help="test samples of the metric (default: the metric's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", nargs="*", default=["l1"], help="criteria whose cuts are not compensated")
    parser.add_argument("--criteria", nargs="+", default=["obs"], help="criteria whose cuts are compensated")
    parser.add_argument("--scopes", nargs="+", default=["layer"], choices=get_args(Scope))
    parser.add_argument("--methods", nargs="+", default=["none", "bias", "lsq", "auto"], help="compensations")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    table: list[Row] = []
    for name in arguments.models:
        subject = Subject(
            name, samples=arguments.samples, test_samples=arguments.test_samples, seed=arguments.seed, threads=2
        )
        scored = Scored(subject)
        for ratio in arguments.ratios:
            table += rows(scored, ratio, arguments)
            if arguments.markdown:
                arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
