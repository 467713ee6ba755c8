"""Quality of real models against the sparsity pattern: magnitude, Wanda, SparseGPT, ours on the same layers and data.

    python -m benchmarks.pattern_quality fashion-net crepe-tiny [--cases 2:4 2:4@0.3 block:4x1@0.5 unstructured@0.7]
        [--methods magnitude Wanda SparseGPT ours ours+order] [--solver balanced] [--samples N …] [--test-samples N]
        [--seeds 0 1 2] [--allocations uniform erk lamp global loss] [--exclude NAME …] [--layers] [--keep F.json]
        [--markdown F]

Every zoo model with a metric; stem, depthwise convolutions and head stay dense, as in a compile. All methods go through
the layers in order, on the inputs that the layers before give once they are pruned. The peers are the published
methods: no dense target, no biases, the other layers as they are. The test data is none that calibration saw. Seeds
draw the calibration data: `value` is the mean over them, `least` and `most` their range. Several numbers of samples
give the curve of quality against them. `--allocations` spread the level over the layers; the mean over all weights
stays. `--exclude` leaves further layers dense, by name or glob, as in a compile. `--layers` says what every layer lost,
behind its activation, on held-out data, and what its own outputs would have lost without any zeros, because of what its
inputs have become.

Times are seconds of the processor, which other work on the machine does not change; `passes` is their number in forward
passes of the dense model over the same calibration samples, in ONNX Runtime with one thread. The peak memory, on
stderr, is that of the whole process.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.kept import KeptRows
from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.api.levels import allocate_levels
from prunec.api.options import PlanOptions
from prunec.api.permuting import order_channels
from prunec.api.progress import silent
from prunec.graph.orders import analyse_orders
from prunec.passes.compensate import Compensated, Options, compensate
from prunec.passes.permute import permute_channels
from prunec.passes.solve import Effort, LayerProblem, Solution, solve
from prunec.passes.solve import Trial as SolverTrial
from prunec.passes.solve.masks import magnitude_mask, wanda_mask
from prunec.passes.solve.quadratic import quadratic
from prunec.passes.solve.sparsegpt import refusal, sparsegpt
from prunec.passes.sparsify import LayerPattern, LayerResult, Sparsifier, prove_patterns
from prunec.patterns import Pattern, masked, parse
from prunec.plan.layers import choose_layers
from prunec.plan.levels import ALLOCATIONS, Allocation
from prunec.plan.permutation import source_of

PEERS = ("magnitude", "Wanda", "SparseGPT")
ORDERED = "ours+order"
OURS = ("ours", ORDERED)


@dataclass
class Row:
    """`value`, `output_error`, `seconds`: means over the seeds; `others`: further numbers of the metric."""

    model: str
    pattern: str
    zeros: float
    samples: int
    method: str
    allocation: str
    metric: str
    dense: float
    value: float
    least: float
    most: float
    others: str
    output_error: float
    seconds: float
    passes: float
    excluded: str = ""


@dataclass
class Trial:
    """One seed: all numbers of the metric, the outputs' relative error on held-out data, the time it took."""

    values: dict[str, float]
    output_error: float
    seconds: float
    passes: float


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
        trial = SolverTrial(self.name, 0.01, problem.fit.error(weight), problem.held_out.error(weight))
        return Solution(weight, mask, weight, trial, (trial,), ())


def attempt(
    subject: Subject,
    pattern: Pattern,
    share: float | None,
    method: str,
    effort: Effort,
    allocation: Allocation,
    exclude: Sequence[str],
    *,
    shows_layers: bool,
) -> Trial:
    start = time.process_time()
    watched = Watched() if shows_layers else None
    done = solved(subject, pattern, share, method, effort, allocation, exclude, watched)
    seconds = time.process_time() - start
    if watched is not None:
        print_layers(done, watched)
    return Trial(subject.values(done.model), done.error_chosen**0.5, seconds, seconds / subject.pass_seconds)


def solved(
    subject: Subject,
    pattern: Pattern,
    share: float | None,
    method: str,
    effort: Effort,
    allocation: Allocation,
    exclude: Sequence[str] = (),
    watched: Watched | None = None,
) -> Compensated:
    """The subject with that pattern and that share of zeros (None: what the pattern implies), its zeros proved."""
    opened = subject.opened
    level, mean = pattern.level(share), pattern.mean_level(share)
    plans = choose_layers(opened.canonical, pattern, level, exclude=exclude)
    own = PlanOptions(seed=subject.seed, threads=subject.threads)
    plans = allocate_levels(plans, opened.canonical, pattern, allocation, mean, subject.calibration, own, silent)
    layers = {plan.node: LayerPattern(pattern, plan.level) for plan in plans if plan.pattern != "dense"}
    solver = Sparsifier(layers, effort, Peer(method) if method in PEERS else watched or solve)
    if watched is not None:
        watched.results = solver.results
    dense = opened.canonical
    options = Options(method="none" if method in PEERS else "auto", seed=subject.seed)
    whole = np.ones(opened.analysis.channel_count, bool)
    if method == ORDERED:
        dense = reordered(subject, layers, whole)
    done = compensate(dense, dense, opened.analysis, whole, subject.calibration, options, None, solver)
    proofs = prove_patterns(done.model, layers)
    assert all(proof.passed for proof in proofs.values())
    return done


class Watched:
    """`solve`; `found`: by layer, squared errors of its own outputs on held-out data, with zeros and with none at all.

    Without zeros the weights are fitted to the same inputs at the same damping: what is left is what the inputs have
    lost. Layers in groups are left out.
    """

    def __init__(self) -> None:
        self.results: Mapping[str, LayerResult] = {}
        self.solved: dict[int, list[tuple[float, float]]] = {}

    def __call__(self, problem: LayerProblem, pattern: Pattern, level: float, effort: Effort) -> Solution:
        found = solve(problem, pattern, level, effort)
        q = quadratic(problem, found.chosen.damping)
        errors = found.chosen.error_held_out, problem.held_out.error(q.unscale(q.target))
        self.solved.setdefault(len(self.results), []).append(errors)
        return found

    def found(self) -> dict[str, tuple[float, float]]:
        names = list(self.results)
        return {names[place]: own[0] for place, own in self.solved.items() if len(own) == 1}


def print_layers(done: Compensated, watched: Watched) -> None:
    """Every layer's relative error (not squared) with the least that has to be done to it, and as it was written."""
    own = watched.found()
    for record in done.records:
        before, after = record.error_none**0.5, record.error_chosen**0.5
        text = f"# {record.layer}: {record.method} at {record.damping:g}, {before:.4f} → {after:.4f}"
        if record.layer in own:
            text += "; its own outputs {:.4f}, {:.4f} without zeros".format(*(e**0.5 for e in own[record.layer]))
        print(text)


def reordered(subject: Subject, layers: dict[str, LayerPattern], whole: np.ndarray) -> ir.Model:
    """The dense model with its channels in the order that a compile would choose."""
    opened, options = subject.opened, PlanOptions(seed=subject.seed, threads=subject.threads)
    found = order_channels(
        opened, opened.canonical, whole, layers, subject.calibration, shifts=True, options=options, progress=silent
    )
    if found is None:
        return opened.canonical
    print(f"# {len(found.groups)} groups reordered, {len(found.left)} left", file=sys.stderr)
    orders = analyse_orders(opened.canonical)
    return permute_channels(opened.canonical, orders, source_of(found, opened.canonical, orders))


class Table:
    """One model with one number of samples, a subject for every seed; nothing is loaded before a row is missing."""

    def __init__(self, name: str, samples: int | None, arguments: argparse.Namespace, kept: KeptRows[Row]) -> None:
        self.name, self.samples, self.arguments, self.kept = name, samples, arguments, kept

    @cached_property
    def subjects(self) -> list[Subject]:
        a = self.arguments
        return [
            Subject(self.name, samples=self.samples, test_samples=a.test_samples, seed=seed, is_sparse=True)
            for seed in a.seeds
        ]

    def rows(self) -> Iterator[Row]:
        a = self.arguments
        for case, method, allocation in itertools.product(a.cases, a.methods, a.allocations):
            drawn = (a.solver if method in OURS else "", allocation, self.samples, a.test_samples, a.seeds, *a.exclude)
            yield from self.kept.rows((self.name, case, method, *drawn), partial(self.row, case, method, allocation))

    def row(self, case: str, method: str, allocation: Allocation) -> Iterator[Row]:
        a = self.arguments
        effort: Effort = a.solver
        text, _, asked = case.partition("@")
        pattern, share = parse(text), float(asked) if asked else None
        mean = pattern.mean_level(share)
        if pattern.fixed_level is not None and mean < pattern.fixed_level and allocation in ("uniform", "erk"):
            allocation = "loss"  # as in a compile: whole layers stay dense
        trials = [
            attempt(
                subject,
                pattern,
                share,
                method,
                effort,
                allocation,
                self.arguments.exclude,
                shows_layers=self.arguments.layers,
            )
            for subject in self.subjects
        ]
        first = self.subjects[0]
        found = [trial.values[first.metric] for trial in trials]
        others = {
            name: float(np.mean([t.values[name] for t in trials])) for name in trials[0].values if name != first.metric
        }
        yield Row(
            model=first.name,
            pattern=pattern.name,
            zeros=mean,
            samples=first.calibration.samples,
            method=method if method in PEERS else f"{method}, {effort}",
            allocation=allocation,
            metric=first.metric,
            dense=first.dense,
            value=float(np.mean(found)),
            least=min(found),
            most=max(found),
            others=", ".join(f"{name} {first.dense_values[name]:.3f} → {value:.3f}" for name, value in others.items()),
            output_error=float(np.mean([trial.output_error for trial in trials])),
            seconds=float(np.mean([trial.seconds for trial in trials])),
            passes=float(np.mean([trial.passes for trial in trials])),
            excluded=" ".join(a.exclude),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Quality against the sparsity pattern.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--cases", nargs="+", default=["2:4", "block:4x1@0.5", "unstructured@0.5"])
    parser.add_argument("--methods", nargs="+", default=[*PEERS, *OURS], choices=[*PEERS, *OURS])
    parser.add_argument("--allocations", nargs="+", default=["uniform"], choices=ALLOCATIONS)
    parser.add_argument("--solver", default="balanced", choices=["fast", "balanced", "best"])
    parser.add_argument(
        "--samples",
        type=int,
        nargs="+",
        default=[None],
        help="calibration samples, a fifth held out (default: by cost)",
    )
    parser.add_argument("--test-samples", type=int, help="test samples of the metric (default: the metric's own)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the calibration data")
    parser.add_argument("--exclude", nargs="+", default=[], help="layers that stay dense besides those that always do")
    parser.add_argument("--layers", action="store_true", help="print what every layer lost")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    table: list[Row] = []
    kept = KeptRows(Row, arguments.keep)
    for name, samples in itertools.product(arguments.models, arguments.samples):
        for row in Table(name, samples, arguments, kept).rows():
            table.append(row)
            print(line(row), flush=True)
            if arguments.markdown:
                arguments.markdown.write_text(markdown(table), encoding="utf-8")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
