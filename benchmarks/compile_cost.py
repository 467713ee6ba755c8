"""What a compile costs: seconds per stage, the share spent in forward passes, and peak memory against a bound.

    python -m benchmarks.compile_cost crepe-full [--flops 0.5] [--samples N]

Forward passes are the calls of ONNX Runtime sessions inside this process; memory is its resident set, sampled every
5 ms, over what it was after the imports. The bound is three times the model's file and the statistics of its largest
layer: the second moments H [n, n] of its input and the cross moments [m, n], in float64, or the rows that stand for H
where n is above the patch limit of compensation. Samples are read from files, one each, that another process wrote:
what the data's own code holds is not counted. Stages are those of `prunec compile`. One thread, nothing measured.

For comparison: what ONNX Runtime by itself takes, in a process of its own with the same imports, to make a session of
the model's file and to run it on one sample.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnxruntime as ort

import prunec.models as zoo
from prunec.api.compilation import compile as compile_model
from prunec.api.opening import open_model
from prunec.api.sample_count import default_samples
from prunec.frontend.sample_function import FunctionSource
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.fit import MAX_ROWS_SOLVED, ROWS_ELEMENTS
from prunec.passes.compensate.layers import Layer
from prunec.passes.compensate.options import Options

IMPORTED_LATER = ("onnx.reference.ops", "prunec.verify.reference_conv", "scipy.linalg", "prunec.report.html")


class Stages:
    """A progress callback that adds up seconds per stage, and a thread that watches its memory."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.peak: dict[str, int] = defaultdict(int)
        self._before = resident()
        self._current, self._since = "start", time.perf_counter()
        Thread(target=self._watch, daemon=True).start()

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.perf_counter()
        self.seconds[self._current] += now - self._since
        self._current, self._since = what.partition(":")[0], now

    def _watch(self) -> None:
        while True:
            stage = self._current
            self.peak[stage] = max(self.peak[stage], resident() - self._before)
            time.sleep(0.005)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Forward:
    """Counts the seconds that sessions spend running."""

    def __init__(self) -> None:
        self.seconds = 0.0
        original = ort.InferenceSession.run

        def timed(session: ort.InferenceSession, *arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(session, *arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - start

        ort.InferenceSession.run = timed


def largest_statistics(path: Path) -> int:
    """Bytes of the statistics of the layer that has most of them."""
    layers, _ = find_layers(open_model(path).canonical)
    return max((statistics_bytes(layer) for layer in layers if isinstance(layer, Layer)), default=0)


def statistics_bytes(layer: Layer) -> int:
    groups, outputs, kernel, channels = layer.matrix().shape
    unknowns = kernel * channels
    if unknowns <= Options().patch_limit:
        return 8 * groups * unknowns * (unknowns + outputs)
    rows = min(MAX_ROWS_SOLVED, ROWS_ELEMENTS // unknowns) if groups == 1 else 0
    return 4 * rows * unknowns + 8 * rows * (rows + outputs)


def write_samples(calib: str, samples: int, folder: Path) -> None:
    """One file per sample, in the order of the function."""
    for number, (_, item) in enumerate(FunctionSource(calib, samples=samples, seed=0).items()):
        if number == samples:
            break
        arrays = item if isinstance(item, dict) else {"": item}
        np.savez(folder / f"{number}.npz", **arrays)


def describe(name: str, samples: int | None, folder: Path) -> int:
    """In another process: write the samples and print how many bytes the largest statistics take."""
    model = zoo.get(name)
    if model.calib is not None:
        write_samples(model.calib, samples or default_samples(open_model(model.path).canonical), folder)
    print(largest_statistics(model.path))
    return 0


def bare(path: Path) -> int:
    """Bytes that one session and one run of one sample take at most, over what was there before."""
    watched = Stages()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shapes = {i.name: ([d if isinstance(d, int) else 1 for d in i.shape], i.type) for i in session.get_inputs()}
    assert {kind for _, kind in shapes.values()} == {"tensor(float)"}, "a model with other inputs than numbers"
    session.run(None, {name: np.zeros(shape, np.float32) for name, (shape, _) in shapes.items()})
    return max(watched.peak.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds per stage and peak memory of a compile.")
    parser.add_argument("model")
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--describe", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.describe is not None:
        return describe(arguments.model, arguments.samples, arguments.describe)
    model = zoo.get(arguments.model)
    if arguments.bare:
        print(bare(model.path))
        return 0
    for name in IMPORTED_LATER:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples")
        samples.mkdir()
        command = [sys.executable, "-m", "benchmarks.compile_cost", *sys.argv[1:]]
        described = subprocess.run(
            [*command, "--describe", str(samples)], check=True, stdout=subprocess.PIPE, text=True
        )
        alone = subprocess.run([*command, "--bare"], check=True, stdout=subprocess.PIPE, text=True)
        stages, forward = Stages(), Forward()
        start = time.perf_counter()
        compile_model(
            model.path,
            output=Path(folder) / "out",
            flops=arguments.flops,
            calib=None if model.calib is None else str(samples),
            samples=arguments.samples,
            measure=False,
            cache=False,
            progress=stages,
        )
        total = time.perf_counter() - start
        stages("end", 0, 0)
    for name, seconds in stages.seconds.items():
        print(f"{name:32s} {seconds / total:6.1%} {seconds:7.1f} s {stages.peak[name] / 2**20:6.0f} MiB")
    print(f"{'forward passes in all of these':32s} {forward.seconds / total:6.1%} {forward.seconds:7.1f} s")
    size, statistics = model.path.stat().st_size, int(described.stdout.split()[-1])
    peak, bound = max(stages.peak.values()), 3 * size + statistics
    print(f"peak memory over the imports     {peak / 2**20:6.0f} MiB, {peak / size:.1f} x the model")
    terms = f"3 x {size / 2**20:.0f} + {statistics / 2**20:.0f} for the largest layer's statistics"
    print(f"bound                            {bound / 2**20:6.0f} MiB = {terms}: {'pass' if peak <= bound else 'FAIL'}")
    print(f"a session and a run by themselves {int(alone.stdout) / 2**20:5.0f} MiB")
    return 0 if peak <= bound else 1


if __name__ == "__main__":
    sys.exit(main())
