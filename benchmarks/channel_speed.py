"""Measured speed against the share of channels cut: ONNX Runtime, dense over pruned, with 95 % intervals.

    python -m benchmarks.channel_speed crepe-full ocr-rec [--ratios 0.1 0.3 0.5] [--threads 1 2] [--round-to N]

Widths decide the speed, values do not: channels are cut uniformly by L1, rounded as for target onnx (`--round-to 1`
shows what odd widths cost). Protocol: `prunec.measure`. Not faster is reported as such.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import onnx_ir as ir

import prunec.models as zoo
from prunec.api.opening import open_model
from prunec.criteria import ScoreContext, create
from prunec.graph.cost import model_macs
from prunec.measure.contender import Contender
from prunec.measure.run import measure
from prunec.passes.slice_channels import slice_channels
from prunec.plan.budget import Budget
from prunec.plan.planner import Planner


def main() -> int:
    parser = argparse.ArgumentParser(description="Measured speed against the share of channels cut.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--round-to", type=int)
    arguments = parser.parse_args()
    print("| model | channels cut | MACs left | threads | dense / pruned | 95 % interval | verdict |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.models:
        for ratio in arguments.ratios:
            report(name, ratio, arguments)
    return 0


def report(name: str, ratio: float, arguments: argparse.Namespace) -> None:
    """One line per number of threads."""
    found = zoo.get(name)
    opened = open_model(found.path)
    model, analysis = opened.canonical, opened.analysis
    budget = Budget.of("channels", ratio)
    context = ScoreContext(model, analysis)
    plan = Planner(model, analysis, create("l1"), context, round_to=arguments.round_to).least_cut(budget)
    cut = slice_channels(model, analysis, analysis.alive(plan.keeps()))
    feeds = next(iter(importlib.import_module(found.entry.module).test_inputs(1, 0)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.onnx"
        ir.save(cut, path)
        contenders = [Contender("dense_onnxruntime", found.path), Contender("pruned_onnxruntime", path)]
        for threads in arguments.threads:
            result = measure(contenders, feeds, threads=threads, blocks=arguments.blocks)
            speedup = result.speedup["vs_dense_onnxruntime"]
            low, high = speedup.ci95
            left = model_macs(cut) / model_macs(model)
            print(
                f"| {name} | {ratio:.0%} | {left:.2f} | {threads} | {speedup.median:.2f} | {low:.2f} to {high:.2f} "
                f"| {speedup.verdict} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
