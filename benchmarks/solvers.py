"""Pruning solvers beside each other on synthetic layers, on a small network, and on a wide layer.

    python -m benchmarks.solvers [--seeds 5] [--tables layers blocks network permutation wide] [--markdown FILE]

Held-out error ‖(W − Ŵ)X‖/‖WX‖ on rows that no method saw, mean over seeds with a 95 % t-interval. Peers are the
published methods on all calibration rows; ours keep a fifth of the same rows back to choose with. Deterministic.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.synthetic_layers import forward, inputs, network, relative_error, relu
from prunec.passes.solve import Effort, LayerProblem, order_inputs, order_outputs, solve
from prunec.passes.solve.masks import magnitude_mask, wanda_mask
from prunec.passes.solve.quadratic import quadratic
from prunec.passes.solve.refit import refit
from prunec.passes.solve.sparsegpt import sparsegpt
from prunec.patterns import Layout, Pattern, masked, parse
from prunec.statistics.blas_threads import blas_threads

Double = npt.NDArray[np.float64]
Method = Callable[[Double, Double, Double, Pattern, float], Double]
"""(weight, inputs of the pruned net, dense targets, pattern, level) → pruned weight."""
WIDTH = 256


def peer(name: str) -> Method:
    """Published methods: fitted to their own inputs and W₀, 1 % of the mean diagonal as damping."""

    def run(weight: Double, rows: Double, _: Double, pattern: Pattern, level: float) -> Double:
        own = (rows, rows @ weight.T)
        q = quadratic(LayerProblem.of_rows(weight, own, own), 0.01, "mean", to_dense=False)
        if name == "magnitude":
            return masked(weight, magnitude_mask(q, pattern, level))
        if name == "Wanda" or name == "Wanda + refit":
            mask = wanda_mask(q, pattern, level, "row" if pattern.name == "unstructured" else "layer")
            return masked(weight, mask) if name == "Wanda" else q.unscale(refit(q, mask, pattern.rows))
        updated, mask, _ = sparsegpt(q, pattern, level)
        return masked(weight, mask) if name == "SparseGPT, mask only" else q.unscale(updated)

    return run


def ours(effort: Effort, permutes: bool) -> Method:
    def run(weight: Double, rows: Double, target: Double, pattern: Pattern, level: float) -> Double:
        fit = len(rows) * 4 // 5
        problem = LayerProblem.of_rows(weight, (rows[:fit], target[:fit]), (rows[fit:], target[fit:]))
        plain = solve(problem, pattern, level, effort)
        if not permutes:
            return plain.weight
        q = quadratic(problem, max(plain.chosen.damping, 0.01))
        saliency = q.saliency(q.target)
        order = order_inputs(saliency, Layout(1, weight.shape[1]), pattern, level)
        order = np.arange(weight.shape[1]) if order is None else order
        outputs = order_outputs(saliency[:, order], pattern, level)
        outputs = np.arange(weight.shape[0]) if outputs is None else outputs
        permuted = solve(problem.permuted(order).rows(outputs), pattern, level, effort)
        if permuted.chosen.error_held_out >= plain.chosen.error_held_out:
            return plain.weight
        found = np.zeros_like(weight)
        found[np.ix_(outputs, order)] = permuted.weight
        return found

    return run


PEERS = ("magnitude", "Wanda", "Wanda + refit", "SparseGPT, mask only", "SparseGPT")
METHODS: dict[str, Method] = {name: peer(name) for name in PEERS} | {
    "ours, fast": ours("fast", False),
    "ours, balanced": ours("balanced", False),
    "ours, best": ours("best", False),
    "ours, balanced + permutation": ours("balanced", True),
}


def interval(values: Sequence[float]) -> str:
    """Mean ± half of the 95 % interval."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} ± {half:.3f}"


def table(columns: dict[str, dict[str, list[float]]], against: Sequence[str]) -> str:
    """Rows are methods, columns cases; below, the last method's paired ratio to those peers that were run."""
    names = list(next(iter(columns.values())))
    lines = ["| method | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    lines += [f"| {name} | " + " | ".join(interval(columns[c][name]) for c in columns) + " |" for name in names]
    for other in (name for name in against if name in names[:-1]):
        ratios = [interval(list(np.divide(columns[c][names[-1]], columns[c][other]))) for c in columns]
        lines.append(f"| {names[-1]} ÷ {other} | " + " | ".join(ratios) + " |")
    return "\n".join(lines) + "\n"


def layers(cases: dict[str, tuple[str, float, float, float, int]], methods: Sequence[str], seeds: int) -> str:
    columns: dict[str, dict[str, list[float]]] = {}
    for title, (name, level, alpha, mean, samples) in cases.items():
        errors: dict[str, list[float]] = {method: [] for method in methods}
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            x = inputs(random, alpha, mean, samples, WIDTH, 4096)
            weight = random.standard_normal((WIDTH, WIDTH))
            for method in methods:
                pruned = METHODS[method](weight, x.calibration, x.calibration @ weight.T, parse(name), level)
                errors[method].append(relative_error(weight, pruned, x.test))
        columns[title] = errors
        print(title, {method: interval(values) for method, values in errors.items()}, flush=True)
    return table(columns, ["SparseGPT", "SparseGPT, mask only", "Wanda"])


def networks(seeds: int, depth: int = 6) -> str:
    """A ReLU network pruned layer by layer on the inputs that its pruned layers give. Peers fit W x_p, ours W x_d."""
    methods = ("magnitude", "Wanda", "SparseGPT", "ours, balanced", "ours, balanced + permutation")
    errors: dict[str, list[float]] = {method: [] for method in methods}
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        x = inputs(random, 1.0, 0.0, 4096, WIDTH, 4096)
        dense = network(random, depth, WIDTH)
        wanted = forward(dense, x.test)
        for method in methods:
            pruned: list[Double] = []
            rows, dense_rows = x.calibration, x.calibration
            for weight in dense:
                target = dense_rows @ weight.T
                pruned.append(METHODS[method](weight, rows, target, parse("2:4"), 0.5))
                rows, dense_rows = relu(rows @ pruned[-1].T), relu(target)
            errors[method].append(float(np.linalg.norm(forward(pruned, x.test) - wanted) / np.linalg.norm(wanted)))
    return table({f"{depth} layers of {WIDTH}, 2:4": errors}, ["SparseGPT"])


def permutation(seeds: int) -> str:
    """ASP's reference: a uniform 64×128 matrix, 2:4. Efficacy = (permuted − default)/(ideal − default)."""
    lines = ["| seed | default | permuted | ideal (unstructured) | efficacy | seconds |", "|---|---|---|---|---|---|"]
    pattern, layout = parse("2:4"), Layout(1, 128)
    for seed in range(seeds):
        matrix = np.random.default_rng(seed).random((64, 128))
        start = time.perf_counter()
        order = order_inputs(matrix, layout, pattern, 0.5)
        seconds = time.perf_counter() - start
        assert order is not None
        kept = [float(m[pattern.project(m, layout, 0.5)].sum()) for m in (matrix, matrix[:, order])]
        ideal = float(np.sort(matrix, axis=None)[matrix.size // 2 :].sum())
        efficacy = (kept[1] - kept[0]) / (ideal - kept[0])
        lines.append(f"| {seed} | {kept[0]:.1f} | {kept[1]:.1f} | {ideal:.1f} | {efficacy:.1%} | {seconds:.2f} |")
    return "\n".join(lines) + "\n"


def wide(methods: Sequence[str], width: int = 4096) -> str:
    """One wide layer: error, seconds on the clock and of processor time."""
    random = np.random.default_rng(0)
    x = inputs(random, 1.0, 0.0, 2 * width, width, 2048)
    weight = random.standard_normal((width, width))
    target = x.calibration @ weight.T
    lines = [f"| {width}×{width}, 2:4, {2 * width} rows | error | seconds | CPU seconds |", "|---|---|---|---|"]
    for name in (m for m in ("SparseGPT", "ours, fast", "ours, balanced") if m in methods):
        start, processor = time.perf_counter(), time.process_time()
        pruned = METHODS[name](weight, x.calibration, target, parse("2:4"), 0.5)
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        error = relative_error(weight, pruned, x.test)
        lines.append(f"| {name} | {error:.3f} | {seconds:.0f} | {processor:.0f} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


CASES = {
    "α=0, n=4096": ("2:4", 0.5, 0.0, 0.0, 4096),
    "α=1, n=4096": ("2:4", 0.5, 1.0, 0.0, 4096),
    "α=1.5, mean .5": ("2:4", 0.5, 1.5, 0.5, 4096),
    "α=1, mean .5, n=512": ("2:4", 0.5, 1.0, 0.5, 512),
}
BLOCKS = {
    f"{name}, 70 %": (name, 0.7, 1.0, 0.0, 4096)
    for name in ("block:4x4", "block:16x1", "block:1x4", "block:4x1", "unstructured")
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Pruning solvers on synthetic layers.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="BLAS threads")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    tables = ("layers", "blocks", "network", "permutation", "wide")
    parser.add_argument("--tables", nargs="+", choices=tables, default=list(tables))
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    makers: dict[str, Callable[[], str]] = {
        "layers": lambda: layers(CASES, arguments.methods, arguments.seeds),
        "blocks": lambda: layers(BLOCKS, [m for m in arguments.methods if m != "ours, fast"], arguments.seeds),
        "network": lambda: networks(arguments.seeds),
        "permutation": lambda: permutation(arguments.seeds),
        "wide": lambda: wide(arguments.methods),
    }
    done = []
    with blas_threads(arguments.threads):
        for name in arguments.tables:
            done.append(f"### {name}\n\n{makers[name]()}")
            print(done[-1], flush=True)
            if arguments.markdown:
                arguments.markdown.write_text("\n".join(done), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
