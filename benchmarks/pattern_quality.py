"""Quality of real models against the sparsity pattern: magnitude, Wanda, SparseGPT, ours on the same layers and data.

    python -m benchmarks.pattern_quality fashion-net crepe-tiny [--cases 2:4 block:4x1@0.5 unstructured@0.7]
        [--methods magnitude Wanda SparseGPT ours] [--solver balanced] [--samples N] [--test-samples N] [--markdown F]

Every zoo model with a metric; stem, depthwise convolutions and head stay dense, as in a compile. All methods go through
the layers in order, on the inputs that the layers before give once they are pruned. The peers are the published
methods: no dense target, no biases, the other layers as they are. The test data is none that calibration saw.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import onnx_ir as ir

import prunec.models as zoo
from prunec.api.opening import open_model
from prunec.api.planning import default_samples
from prunec.backends.onnx.session import make_session, run
from prunec.frontend.calibration import open_calibration
from prunec.passes.compensate import Options, compensate
from prunec.passes.solve import Effort, LayerProblem, Solution, Trial
from prunec.passes.solve.masks import magnitude_mask, wanda_mask
from prunec.passes.solve.quadratic import quadratic
from prunec.passes.solve.sparsegpt import refusal, sparsegpt
from prunec.passes.sparsify import LayerPattern, Sparsifier, prove_patterns
from prunec.patterns import Pattern, masked, parse
from prunec.plan.layers import choose_layers
from prunec.verify.user_metric import evaluate, load_metric

PEERS = ("magnitude", "Wanda", "SparseGPT")


@dataclass
class Row:
    model: str
    pattern: str
    zeros: float
    method: str
    metric: str
    dense: float
    value: float
    output_error: float
    seconds: float


class Peer:
    """A published method in the place of `passes.solve.solve`: damping 1 % of the mean diagonal, W₀ as the target."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, problem: LayerProblem, pattern: Pattern, level: float, _: Effort) -> Solution:
        q = quadratic(problem, 0.01, "mean", to_dense=False)
        if self.name == "SparseGPT" and refusal(q, pattern) is None:
            updated, mask, _notes = sparsegpt(q, pattern, level)
            weight = masked(q.unscale(updated), mask)
        else:
            choose = magnitude_mask if self.name == "magnitude" else wanda_mask
            mask = choose(q, pattern, level, "row" if pattern.name == "unstructured" else "layer")
            weight = masked(problem.weight, mask)
        trial = Trial(self.name, 0.01, problem.fit.error(weight), problem.held_out.error(weight))
        return Solution(weight, mask, weight, trial, (trial,), ())


class Subject:
    """One zoo model with its data and metric."""

    def __init__(self, name: str, samples: int | None, test_samples: int | None, seed: int) -> None:
        found = zoo.get(name, progress=lambda text: print(f"# {text}", file=sys.stderr))
        assert found.calib is not None and found.metric is not None, f"{name} has no data"
        self.name, self.seed, self.test_samples = name, seed, test_samples
        self.opened = open_model(found.path)
        count = samples or default_samples(self.opened.canonical)
        self.calibration = open_calibration(
            found.calib, self.opened.canonical, samples=count, seed=seed, demanded=samples is not None
        )
        self.metric = load_metric(found.metric)
        self.primary, self.dense = self.judge(self.opened.source.model)

    def judge(self, model: ir.Model) -> tuple[str, float]:
        session = make_session(model, threads=1)
        values = evaluate(self.metric, lambda feeds: run(session, feeds), samples=self.test_samples)
        return next(iter(values.items()))

    def row(self, pattern: Pattern, level: float, method: str, effort: Effort) -> Row:
        opened = self.opened
        plans = choose_layers(opened.canonical, pattern, level)
        layers = {plan.node: LayerPattern(pattern, plan.level) for plan in plans if plan.pattern != "dense"}
        solver = Sparsifier(layers, effort, Peer(method)) if method in PEERS else Sparsifier(layers, effort)
        options = Options(method="none" if method in PEERS else "auto", seed=self.seed)
        start = time.perf_counter()
        whole = np.ones(opened.analysis.channel_count, bool)
        done = compensate(
            opened.canonical, opened.canonical, opened.analysis, whole, self.calibration, options, None, solver
        )
        seconds = time.perf_counter() - start
        proofs = prove_patterns(done.model, layers)
        assert all(proof.passed for proof in proofs.values())
        return Row(
            model=self.name,
            pattern=pattern.name,
            zeros=level,
            method=method if method in PEERS else f"ours, {effort}",
            metric=self.primary,
            dense=self.dense,
            value=self.judge(done.model)[1],
            output_error=done.error_chosen**0.5,
            seconds=seconds,
        )


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def markdown(table: list[Row]) -> str:
    names = [field.name for field in fields(Row)]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(getattr(row, name)) for name in names) + " |" for row in table]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Quality against the sparsity pattern.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--cases", nargs="+", default=["2:4", "block:4x1@0.5", "unstructured@0.5"])
    parser.add_argument("--methods", nargs="+", default=[*PEERS, "ours"], choices=[*PEERS, "ours"])
    parser.add_argument("--solver", default="balanced", choices=["fast", "balanced", "best"])
    parser.add_argument("--samples", type=int, help="calibration samples, a fifth held out (default: by the cost)")
    parser.add_argument("--test-samples", type=int, help="test samples of the metric (default: the metric's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    table: list[Row] = []
    for name in arguments.models:
        subject = Subject(name, arguments.samples, arguments.test_samples, arguments.seed)
        for case in arguments.cases:
            text, _, share = case.partition("@")
            pattern = parse(text)
            level = pattern.level(float(share) if share else None)
            for method in arguments.methods:
                table.append(subject.row(pattern, level, method, arguments.solver))
                print("  ".join(f"{f.name}={_cell(getattr(table[-1], f.name))}" for f in fields(Row)), flush=True)
                if arguments.markdown:
                    arguments.markdown.write_text(markdown(table), encoding="utf-8")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
