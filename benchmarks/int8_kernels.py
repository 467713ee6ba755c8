"""Single int8 layers in generated kernels: rate on the non-zeros, share of the processor's peak, speed against others.

    python -m benchmarks.int8_kernels [--only 'resnet50*'] [--densities 1 .5 .25] [--isa x86-avx512-vnni] [--threads 1]
        [--runs 40] [--keep rows.json] [--markdown FILE]

Layers of ResNet-50, MobileNet-v2, MiniLM-L6 (64 tokens) and EfficientNet-Lite0, uint8 in and out with ReLU, random
weights with random zero blocks of 4×4. In each of many rounds the four-way products in registers that are the
processor's peak, every int8 kernel worth choosing among, our own float32 kernels (zero blocks of 4×1, as many) and ONNX
Runtime's dense layer in int8 and in float32 run in turn; with one thread its CPU time is what is read. `us`, `gops`
and `peak`, the share of the peak on the non-zeros, are of the shortest times, because whatever else the machine does
only adds; `interval` is the 95 % one of the median of that share over the rounds, whose parts slow down together, but
the kernel more than the peak where something else runs on the same core. `own_float`, `ort_int8`, `ort_float`: their
times over that of the best int8 kernel, medians of the ratios within a round with 95 % intervals. `rule`: time of the
best kernel over that of the one chosen without measuring. ONNX Runtime computes int8 convolutions channels last in its
own operator, so that it pays for no conversion, and float32 in the better of its runs with and without its own layout.
That kernels compute the right numbers is what tests are for.

The last lines say how many layers with more than 10 million operations reach what is aimed at: 85 % of the peak.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("TVM_NUM_THREADS", "1")

import numpy as np

from benchmarks import cpu_layers, int8_layers
from benchmarks.cpu_kernels import peak_meter
from benchmarks.cpu_layers import LAYERS, mflop, seconds
from benchmarks.int8_layers import Layer, spelled
from benchmarks.kept import KeptRows
from benchmarks.tables import told
from prunec.backends.cpu.isa import X86_INT8, Isa, host_isa, int8_isa
from prunec.measure.ratio import bootstrap_median

LEAST_MOP, PEAK = 10, 0.85


@dataclass
class Row:
    """`mop`: million operations of the dense layer; `gops` on the non-zeros."""

    layer: str
    density: float
    threads: int
    mop: float
    us: float
    gops: float
    peak: float
    interval: str
    own_float: str
    ort_int8: str
    ort_float: str
    rule: float
    kernel: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Generated int8 kernels, layer by layer.")
    parser.add_argument("--only", default="*")
    parser.add_argument("--densities", type=float, nargs="+", default=[1.0, 0.5, 0.25])
    parser.add_argument("--isa", choices=X86_INT8, default=int8_isa().name)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not measured again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    told(all_rows(arguments, X86_INT8[arguments.isa]), arguments.markdown, verdicts)
    return 0


def all_rows(arguments: argparse.Namespace, isa: Isa) -> Iterator[Row]:
    """All densities of every layer, one after the other."""
    kept = KeptRows(Row, arguments.keep)
    for name in fnmatch.filter(LAYERS, arguments.only):
        for threads in arguments.threads:
            for density in arguments.densities:
                key = (name, density, threads, arguments.runs, isa.name)
                measure = partial(measured, Layer(name, density), threads, arguments.runs, isa)
                yield from kept.rows(key, lambda measure=measure: [measure()])  # type: ignore[misc]


def measured(layer: Layer, threads: int, runs: int, isa: Isa) -> Row:
    """Everything in each round."""
    flops, kernels = int8_layers.candidate_kernels(layer, isa, threads)
    dense = cpu_layers.layer_model(layer.name, 1.0, 4)
    inside = cpu_layers.layer_model(layer.name, layer.density, 4, is_inside=True)
    _, floats = cpu_layers.candidate_kernels(inside, host_isa(), threads)
    others = {
        "own_float": list(floats.values()),
        "ort_int8": int8_layers.in_onnx_runtime(layer, threads),
        "ort_float": cpu_layers.in_onnx_runtime(dense, threads),
    }
    meter = peak_meter(isa, threads, is_int8=True)
    times: dict[object, list[float]] = {name: [] for name in (*others, *kernels)}
    peaks = list[float]()
    for _ in range(runs):
        peaks.append(meter.gflops())
        for name, several in others.items():
            times[name].append(min(seconds(run, threads) for run in several))
        for choice, run in kernels.items():
            times[choice].append(seconds(run, threads))
    winner = min(kernels, key=lambda choice: np.median(times[choice]))
    own = np.array(times[winner])
    shares = flops / own / 1e9 / np.array(peaks)
    low, high = bootstrap_median(shares[None], seed=0)
    return Row(
        layer=layer.name, density=layer.density, threads=threads, mop=mflop(layer.name), us=own.min() * 1e6,
        gops=flops / own.min() / 1e9, peak=flops / own.min() / 1e9 / max(peaks), interval=f"{low:.2f}–{high:.2f}",
        rule=float(np.median(own / np.array(times[next(iter(kernels))]))), kernel=spelled(winner),
        **{name: _ratio(np.array(times[name]) / own) for name in others},
    )  # fmt: skip


def _ratio(values: np.ndarray) -> str:
    low, high = bootstrap_median(values[None], seed=0)
    return f"{np.median(values):.2f} ({low:.2f}–{high:.2f})"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line for each density and number of threads: PASS, or SHORT with how many reach the aim."""
    found = []
    for threads in dict.fromkeys(row.threads for row in rows):
        for density in dict.fromkeys(row.density for row in rows):
            own = [row.peak for row in rows if (row.threads, row.density) == (threads, density) and row.mop > LEAST_MOP]
            if own:
                reached = sum(share >= PEAK for share in own)
                word = "PASS" if reached == len(own) else "SHORT"
                what = f"density {density}, {threads} thread{'s' if threads > 1 else ''}, {PEAK:.0%} of the peak"
                count = f"{reached} of {len(own)} layers"
                found.append(f"{word}: {what}: {count}, median {np.median(own):.2f}, least {min(own):.2f}\n")
    return found


if __name__ == "__main__":
    sys.exit(main())
