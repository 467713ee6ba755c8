"""Quality and speed against how much of one structure goes: heads, hidden layers, head widths, streams, depth.

    python -m benchmarks.structure_quality minilm-l6 [--structures heads ffn head-width residual depth]
        [--ratios 0.1 0.2 0.3 0.5] [--samples N] [--test-samples N] [--no-speed] [--markdown FILE]

A ratio is the share of the structure's channels that goes (global scope, exact saliency unless another
criterion is named, rounded as for target onnx);
for depth the share of all multiply-accumulates. Per point: the model's own metric on test data and the cosine of its
outputs with the dense model's on held-out calibration data, cut only and compensated, and the latency of ONNX Runtime
dense over pruned with its 95 % interval (one thread; `prunec.measure`).
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.api.refitting import refit
from prunec.api.stages import Stage, analyse_channels, base_model, cut, remove, tidied
from prunec.backends.onnx.session import make_session, run
from prunec.criteria import ScoreContext, create
from prunec.graph import Analysis, Group
from prunec.graph.branches import find_blocks
from prunec.graph.cost import model_macs, parameter_count
from prunec.graph.head_width import analyse_widths
from prunec.measure.contender import Contender
from prunec.measure.run import measure
from prunec.passes.compensate import Options
from prunec.plan.budget import Budget
from prunec.plan.depth import choose_blocks
from prunec.plan.planner import Planner
from prunec.plan.shares import baseline_cost
from prunec.statistics import collect
from prunec.statistics.block_errors import BlockErrors
from prunec.statistics.output_errors import sample_count
from prunec.verify.quality import quality_by_agreement

KINDS = ("heads", "ffn", "head-width", "residual", "depth")


@dataclass
class Row:
    structure: str
    removed: float
    params: float
    macs: float
    metric: str
    dense: float
    cut: float
    compensated: float
    cosine_cut: float
    cosine_compensated: float
    speedup: str
    seconds: float


class Structured(Subject):
    """A subject with the analysis and statistics of each structure."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        super().__init__(
            name, samples=arguments.samples, test_samples=arguments.test_samples, seed=arguments.seed,
            threads=arguments.threads,
        )  # fmt: skip
        self.arguments = arguments
        self.test_inputs = list(importlib.import_module(self.found.entry.module).test_inputs(1, 0))
        self.known: dict[str, tuple[ir.Model, Analysis, ScoreContext]] = {}

    def cosine(self, model: ir.Model) -> float:
        dense, pruned = (make_session(m, threads=self.arguments.threads) for m in (self.opened.canonical, model))
        found = quality_by_agreement(
            lambda feeds: run(dense, feeds),
            lambda feeds: run(pruned, feeds),
            self.calibration.held_out(),
            data="calibration",
        )
        assert found is not None
        return found.pruned if found.metric.endswith("cosine") else (found.others or {}).get("cosine", float("nan"))

    def scored(self, structure: str) -> tuple[ir.Model, Analysis, ScoreContext]:
        """Model, groups of one structure, and statistics; heads are the groups that splits make."""
        if structure not in self.known:
            model = base_model(self.opened, [structure])
            whole = analyse_widths(model) if structure == "head-width" else self.opened.analysis
            if structure == "residual":
                whole = analyse_channels(self.opened, model, ["residual"])
            elif structure in ("heads", "ffn"):
                inner = analyse_widths(model)
                wanted = [g for g in whole.groups if _is_of_heads(g, inner) == (structure == "heads")]
                whole = replace(whole, groups=tuple(wanted))
            needs = create(self.arguments.criterion).needs
            statistics = collect(model, whole, self.calibration, needs, threads=self.arguments.threads)
            self.known[structure] = model, whole, ScoreContext(model, whole, statistics)
        return self.known[structure]

    def stage(self, structure: str, ratio: float) -> Stage:
        if structure == "depth":
            return self.shallower(ratio)
        model, analysis, context = self.scored(structure)
        criterion = create(self.arguments.criterion)
        planner = Planner(model, analysis, criterion, context, scope="global", floor=0.1)
        made = planner.least_cut(Budget.of("channels", ratio))
        return cut("channels", model, analysis, analysis.alive(made.keeps()))

    def shallower(self, ratio: float) -> Stage:
        model = self.opened.canonical
        blocks = find_blocks(model)
        samples = sample_count(model, self.calibration, len(blocks))
        measured = BlockErrors(model, blocks, self.calibration, samples, threads=self.arguments.threads)
        budget = Budget.of("flops", 1 - ratio)
        chosen, _ = choose_blocks(model, blocks, measured.error, budget, baseline_cost(model, ()))
        return remove(model, [block for block, _ in chosen])

    def speedup(self, model: ir.Model) -> str:
        if self.arguments.no_speed:
            return "–"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pruned.onnx"
            ir.save(model, path)
            contenders = [Contender("dense_onnxruntime", self.found.path), Contender("pruned_onnxruntime", path)]
            result = measure(contenders, self.test_inputs[0], threads=1, blocks=self.arguments.blocks)
        speed = result.speedup["vs_dense_onnxruntime"]
        return f"{speed.median:.2f} ({speed.ci95[0]:.2f} to {speed.ci95[1]:.2f})"


def _is_of_heads(group: Group, inner: Analysis) -> bool:
    """Whether another way of splitting cuts the same weights."""
    split = {member.tensor for other in inner.groups for member in other.producers()}
    return any(member.tensor in split for member in group.producers())


def row(subject: Structured, structure: str, ratio: float) -> Row:
    start = time.perf_counter()
    stage = subject.stage(structure, ratio)
    plain = tidied(stage.after)
    options = Options(method="auto", seed=subject.arguments.seed, threads=subject.arguments.threads)
    refitted = refit([stage], subject.calibration, options).model
    dense = subject.opened.canonical
    return Row(
        structure=structure,
        removed=ratio,
        params=parameter_count(plain) / parameter_count(dense),
        macs=model_macs(plain) / model_macs(dense),
        metric=subject.metric,
        dense=subject.dense,
        cut=subject.judge(plain),
        compensated=subject.judge(refitted),
        cosine_cut=subject.cosine(plain),
        cosine_compensated=subject.cosine(refitted),
        speedup=subject.speedup(refitted),
        seconds=time.perf_counter() - start,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Quality and speed against how much of one structure goes.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--structures", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.5])
    parser.add_argument("--criterion", default="obs", help="what scores channels; blocks are measured")
    parser.add_argument("--samples", type=int, help="calibration samples, a fifth held out (default: by the cost)")
    parser.add_argument("--test-samples", type=int, help="test samples of the metric (default: the metric's own)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    for name in arguments.models:
        subject = Structured(name, arguments)
        table: list[Row] = []
        for ratio, structure in itertools.product(arguments.ratios, arguments.structures):
            table.append(row(subject, structure, ratio))
            print(line(table[-1]), flush=True)
            if arguments.markdown:
                ordered = sorted(table, key=lambda found: (arguments.structures.index(found.structure), found.removed))
                arguments.markdown.write_text(markdown(ordered), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
