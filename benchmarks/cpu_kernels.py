"""Single layers in generated kernels: rate on the non-zeros, share of the processor's peak, speed against ONNX Runtime.

    python -m benchmarks.cpu_kernels [--only 'resnet50*'] [--densities 1 .5 .3 .1] [--heights 16 4] [--threads 1 2]
        [--runs 40] [--keep rows.json] [--markdown FILE]

Layers of ResNet-50, MobileNet-v2, MiniLM-L6 (64 tokens) and EfficientNet-Lite0 with ReLU, random weights with random
zero blocks of 16×1 and 4×1 (`--heights`). In each of many rounds the multiply-adds in registers that are the
processor's peak, the kernels that tuning chooses among and ONNX Runtime's dense layer run in turn; with one thread its
CPU time is what is read. `us`, `gflops` and `peak` (the share of what multiply-adds in registers reach on so many
threads) are of the shortest times, because whatever else the machine does only adds. `ceiling` is the share of that
peak which is left where every multiply-add loads a factor from the first cache and nothing else happens: blocks one
vector high do that, taller ones share what they load. `ort` is ONNX Runtime's time (the better of its runs with and
without its own layout) over that of the best kernel and `rule` the time of the best kernel over that of the one chosen
without tuning: medians of the ratios within a round, whose parts slow down together. Every look is a stretch of runs
after an untimed one: weights and inputs are warm, as far as the caches hold them. That kernels compute the right
numbers is what tests are for.

The last lines say how many layers with more than 10 MFLOP reach what is aimed at: 85 % of the peak on the non-zeros,
and when dense at most 5 % more time than ONNX Runtime.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

os.environ.setdefault("TVM_NUM_THREADS", "1")

import numpy as np

from benchmarks.cpu_layers import LAYERS, candidate_kernels, in_onnx_runtime, layer_model, mflop, seconds, spelled
from benchmarks.kept import KeptRows
from benchmarks.tables import told
from prunec.backends.cpu.isa import Isa, host_isa
from prunec.backends.cpu.lower.candidates import Choice
from prunec.backends.cpu.peak import PeakMeter

LEAST_MFLOP, PEAK, DENSE = 10, 0.85, 0.95


@dataclass
class Row:
    """`mflop` of the dense layer, `gflops` on the non-zeros. `peak`, `ceiling`: shares of the peak."""

    layer: str
    pattern: str
    density: float
    threads: int
    mflop: float
    us: float
    gflops: float
    peak: float
    ceiling: float
    ort: float
    rule: float
    kernel: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Generated kernels, layer by layer.")
    parser.add_argument("--only", default="*")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.5, 0.3, 0.1])
    parser.add_argument("--heights", type=int, nargs="+", default=[16, 4], help="of the blocks, in outputs")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not measured again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    told(all_rows(arguments, host_isa()), arguments.markdown, verdicts)
    return 0


def all_rows(arguments: argparse.Namespace, isa: Isa) -> Iterator[Row]:
    """All densities and patterns of every layer, one after the other."""
    kept = KeptRows(Row, arguments.keep)
    for name in fnmatch.filter(LAYERS, arguments.only):
        able = [height for height in arguments.heights if LAYERS[name][1] % height == 0]
        for threads in arguments.threads:
            for density in arguments.densities:
                for height in able[:1] if density == 1 else able:
                    key = (name, density, height, threads, arguments.runs, isa.name)
                    measure = partial(measured, name, density, height, threads, arguments.runs, isa)
                    yield from kept.rows(key, lambda measure=measure: [measure()])  # type: ignore[misc]


def measured(name: str, density: float, height: int, threads: int, runs: int, isa: Isa) -> Row:
    """The peak, ONNX Runtime's dense layer and every candidate in each round."""
    references = in_onnx_runtime(layer_model(name, 1.0, 16), threads)
    flops, kernels = candidate_kernels(layer_model(name, density, height, is_inside=True), isa, threads)
    meter = peak_meter(isa, threads)
    peaks, others, times = list[float](), list[float](), {choice: list[float]() for choice in kernels}
    for _ in range(runs):
        peaks.append(meter.gflops())
        others.append(min(seconds(run, threads) for run in references))
        for choice, run in kernels.items():
            times[choice].append(seconds(run, threads))
    against = {choice: float(np.median(np.array(others) / own)) for choice, own in times.items()}
    rule, winner = next(iter(against)), max(against, key=lambda choice: against[choice])
    rate = flops / min(times[winner]) / 1e9
    return Row(
        layer=name, pattern=f"{height}×1" if density < 1 else "dense", density=density, threads=threads,
        mflop=mflop(name), us=min(times[winner]) * 1e6, gflops=rate, peak=rate / max(peaks),
        ceiling=ceiling(winner, isa, threads), ort=against[winner], rule=against[rule] / against[winner],
        kernel=spelled(winner),
    )  # fmt: skip


def ceiling(choice: Choice, isa: Isa, threads: int) -> float:
    """Share of the peak that is left where multiply-adds load one of their factors as often as this kernel's do."""
    if choice.family != "row_major" or choice.rows > isa.lanes("float32"):
        return 1.0
    return ceiling_of_loads(isa, threads)


@cache
def ceiling_of_loads(isa: Isa, threads: int) -> float:
    """With a load for each multiply-add, all from the first cache."""
    loading, peak = PeakMeter(isa, threads, sharing=1), peak_meter(isa, threads)
    looks = [(loading.gflops(3), peak.gflops(3)) for _ in range(20)]
    return max(own for own, _ in looks) / max(other for _, other in looks)


@cache
def peak_meter(isa: Isa, threads: int, *, is_int8: bool = False) -> PeakMeter:
    """One for all layers."""
    return PeakMeter(isa, threads, is_int8=is_int8)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line for each pattern and number of threads: PASS, or SHORT with how many reach the aim."""
    found = []
    for threads in dict.fromkeys(row.threads for row in rows):
        on = "1 thread" if threads == 1 else f"{threads} threads"
        large = [row for row in rows if row.threads == threads and row.mflop > LEAST_MFLOP]
        for pattern in dict.fromkeys(row.pattern for row in large):
            own = [row for row in large if row.pattern == pattern]
            shares = [row.peak for row in own]
            found.append(_verdict(f"{pattern}, {on}, {PEAK:.0%} of the peak", shares, PEAK))
        dense = [row.ort for row in large if row.density == 1]
        found += [_verdict(f"dense, {on}, {DENSE} of ONNX Runtime's speed", dense, DENSE)] if dense else []
    return found


def _verdict(what: str, values: Sequence[float], aim: float) -> str:
    reached = sum(value >= aim for value in values)
    word = "PASS" if reached == len(values) else "SHORT"
    count = f"{reached} of {len(values)} layers"
    return f"{word}: {what}: {count}, median {np.median(values):.2f}, least {min(values):.2f}\n"


if __name__ == "__main__":
    sys.exit(main())
