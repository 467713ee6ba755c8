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
from prunec.passes.compensate import Options, compensate
from prunec.passes.slice_channels import slice_channels
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan, Scope
from prunec.plan.planner import make_plan
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


class Scored(Subject):
    """A subject with the statistics that score its channels."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        super().__init__(
            name, samples=arguments.samples, test_samples=arguments.test_samples, seed=arguments.seed, threads=2
        )
        opened = self.opened
        self.statistics = collect(
            opened.canonical, opened.analysis, self.calibration, create("obs").needs, threads=2, seed=self.seed
        )

    def alive(self, criterion: str, ratio: float, scope: Scope) -> np.ndarray:
        """The share of every group, or what `scope` makes of the multiply-accumulates which that leaves."""
        uniform = self._plan(criterion, Budget.of("channels", ratio), "layer")
        plan = uniform if scope == "layer" else self._plan(criterion, Budget.of("flops", uniform.realised.flops), scope)
        return self.opened.analysis.alive(plan.keeps())

    def _plan(self, criterion: str, budget: Budget, scope: Scope) -> Plan:
        model, analysis = self.opened.canonical, self.opened.analysis
        context = ScoreContext(model, analysis, self.statistics, self.seed)
        measured = self.measured if scope == "loss" else None
        return make_plan(
            model, analysis, create(criterion), context, budget, scope=scope, seed=self.seed, measured=measured
        )

    @cached_property
    def measured(self) -> CutErrors:
        model, analysis = self.opened.canonical, self.opened.analysis
        return CutErrors(model, analysis, self.calibration, cut_samples(model, analysis, self.calibration), threads=2)


def rows(subject: Scored, ratio: float, arguments: argparse.Namespace) -> list[Row]:
    opened = subject.opened
    result: list[Row] = []
    plain = [name for name in arguments.plain if name not in arguments.criteria]
    chosen = [
        *(("layer", name, ["none"]) for name in plain),
        *((scope, name, arguments.methods) for name in arguments.criteria for scope in arguments.scopes),
    ]
    for scope, criterion, methods in chosen:
        alive = subject.alive(criterion, ratio, scope)
        cut = slice_channels(opened.canonical, opened.analysis, alive)
        for method in methods:
            start = time.perf_counter()
            model, error = cut, None
            if method != "none":
                options = Options(method=method, seed=subject.seed)
                refitted = compensate(
                    opened.canonical, cut, opened.analysis, alive, subject.calibration, options, lambda *_: None
                )
                model, error = refitted.model, refitted.error_chosen
            seconds = time.perf_counter() - start
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
                held_out_error=error,
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
        subject = Scored(name, arguments)
        for ratio in arguments.ratios:
            table += rows(subject, ratio, arguments)
            if arguments.markdown:
                arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
