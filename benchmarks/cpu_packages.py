"""One model, dense and with zeros, compiled for this CPU, and timed beside other runtimes: the rows of `cpu_models`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

import prunec
import prunec.models as zoo
from benchmarks.graph_files import graph_name, read_graph
from benchmarks.runtimes import able, installed
from benchmarks.stopwatch import stopwatch
from prunec.api.opening import one_sample
from prunec.backends.cpu.checking import compare
from prunec.backends.cpu.isa import host_isa
from prunec.diagnostics import PrunecError
from prunec.frontend.calibration import open_calibration
from prunec.frontend.input_shapes import apply_input_shapes, real_inputs
from prunec.frontend.onnx import load
from prunec.graph.shapes import dims
from prunec.measure.contender import OWN, OWN_DENSE, Contender
from prunec.measure.ratio import ratio
from prunec.measure.results import Measurements, Speedup, Times
from prunec.measure.run import measure
from prunec.passes.canonicalise import canonicalise

STAGES = {
    "lowering": ("prunec.backends.cpu.building:prepare", "prunec.backends.cpu.building:split_model"),
    "tuning": ("prunec.backends.cpu.tuning:callables", "prunec.backends.cpu.tuning:_fastest"),
    "LLVM": ("prunec.backends.cpu.artifact:write_object",),
    "linking": ("prunec.backends.cpu.artifact:link",),
    "check": ("prunec.backends.cpu.target:compare", f"{__name__}:compare"),
}
PATTERN = "block:16x1"
DENSE_ORT, SPARSE_ORT = "onnxruntime dense", "onnxruntime"


@dataclass
class Row:
    """`density`: of the prunable layers, in blocks of `pattern`. `ms`: median in generated code.

    `over_X`: X's time over it, with interval.
    """

    model: str
    density: float
    threads: int
    pattern: str = PATTERN
    ms: float | None = None
    over_onnxruntime_dense: str | None = None
    over_onnxruntime: str | None = None
    over_own_dense: str | None = None
    over_openvino: str | None = None
    over_deepsparse: str | None = None
    own_dense_over_onnxruntime: str | None = None
    note: str = ""
    error: str | None = None
    compile_s: float | None = None
    profile: str | None = None
    size_mib: str | None = None
    load_ms: str | None = None
    first_run_ms: str | None = None
    memory_mib: str | None = None


@dataclass(frozen=True)
class Package:
    """A compiled model: its folder, the ONNX file with the same weights, and what it took."""

    folder: Path
    model: Path
    seconds: float
    profile: str
    error: float


class Subject:
    """A model with static shapes, compiled when it is first asked for. Nothing is taken from earlier tuning."""

    def __init__(
        self, name: str, shapes: Mapping[str, Sequence[int]], folder: Path, pattern: str = PATTERN, tune: str = "none"
    ) -> None:
        self.name, self.pattern = graph_name(name), pattern
        self._given, self._shapes, self._folder, self._tune = name, shapes, folder, tune
        self._packages: dict[float, Package] = {}

    @cached_property
    def source(self) -> Path:
        """The dense model as every runtime gets it."""
        found = Path(self._given)
        model = read_graph(found) if found.exists() else load(zoo.get(self._given).path).model
        for value in real_inputs(model):
            first, *others = dims(value) or (1,)
            shape = self._shapes.get(value.name or "", [first if isinstance(first, int) else 1, *others])
            if all(isinstance(d, int) for d in shape):  # others are refused by the compile
                apply_input_shapes(model, {value.name or "": shape})
        path = self._folder / "dense.onnx"
        ir.save(model, path)
        return path

    @cached_property
    def feeds(self) -> dict[str, np.ndarray]:
        model = canonicalise(ir.load(self.source))
        return one_sample(open_calibration(None, model, samples=2, seed=0), model)

    def package(self, density: float, threads: int) -> Package:
        """Raises PrunecError where it cannot be compiled, or computes something else."""
        if density not in self._packages:
            self._packages[density] = self._compile(density, threads)
        return self._packages[density]

    def _compile(self, density: float, threads: int) -> Package:
        out = self._folder / str(density)
        make = self._dense if density == 1 else self._sparse
        with stopwatch(STAGES) as stages:
            start = time.perf_counter()
            error = make(out, density, threads)
            seconds = time.perf_counter() - start
        rest = seconds - sum(stages.values())
        profile = ", ".join(f"{name} {taken:.1f}" for name, taken in (*stages.items(), ("rest", rest)))
        model = self.source if density == 1 else out / "model.onnx"
        return Package(out / "cpu", model, seconds, profile, error)

    def _sparse(self, out: Path, density: float, threads: int) -> float:
        found = prunec.compile(
            self.source, target="cpu", pattern=self.pattern, sparsity=1 - density, solver="magnitude",
            compensate=False, samples=8, threads=threads, output=out, cache=False, measure=False, tune=self._tune,
        )  # fmt: skip
        assert found.verification is not None and found.verification.lowering is not None
        return found.verification.lowering.max_rel

    def _dense(self, out: Path, density: float, threads: int) -> float:
        from prunec.backends.cpu import building
        from prunec.backends.cpu.tuning import Tuning

        out.mkdir()
        tuning = Tuning(host_isa(), self._tune, threads, None, lambda *_: None)
        built = building.build(canonicalise(ir.load(self.source)), host_isa(), out, tuning=tuning)
        return compare(self.source, built.folder, [self.feeds], threads).max_rel


def measured(
    subject: Subject, density: float, threads: int, beside: Sequence[str], blocks: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """One row; where the model cannot be compiled, why."""
    try:
        package, dense = subject.package(density, threads), subject.package(1, threads)
    except PrunecError as reason:
        yield Row(subject.name, density, threads, subject.pattern, note=f"not compiled: {reason.diagnostic}")
        return
    others, missing = installed(package.model, beside, say)
    others, failing = able(others, subject.feeds, threads)
    contenders = [Contender(SPARSE_ORT, package.model), *others, Contender(OWN, package.folder, "cpu")]
    if density != 1:
        contenders = [Contender(DENSE_ORT, subject.source), *contenders, Contender(OWN_DENSE, dense.folder, "cpu")]
    found = measure(contenders, subject.feeds, threads=threads, blocks=blocks)
    yield row_of(subject, density, package, found, missing | failing)


def row_of(subject: Subject, density: float, package: Package, found: Measurements, absent: Mapping[str, str]) -> Row:
    own, ort = found.contenders[OWN], found.contenders[SPARSE_ORT]
    size = sum(path.stat().st_size for path in package.folder.rglob("*") if path.is_file())
    dense = SPARSE_ORT if density == 1 else DENSE_ORT
    return Row(
        model=subject.name, density=density, threads=found.protocol.threads, pattern=subject.pattern, ms=own.p50_ms,
        over_onnxruntime_dense=_over(found, dense), over_onnxruntime=_over(found, SPARSE_ORT),
        over_own_dense=_over(found, OWN_DENSE), over_openvino=_over(found, "openvino"),
        over_deepsparse=_over(found, "deepsparse"), own_dense_over_onnxruntime=_own_dense(found),
        note="; ".join(f"{runtime}: {reason}" for runtime, reason in absent.items()),
        error=f"{package.error:.1e}", compile_s=package.seconds, profile=package.profile,
        size_mib=f"{size / 2**20:.1f} / {package.model.stat().st_size / 2**20:.1f}",
        load_ms=_both(own, ort, "load_ms"), first_run_ms=_both(own, ort, "first_run_ms"),
        memory_mib=_both(own, ort, "peak_rss_mib"),
    )  # fmt: skip


def _over(found: Measurements, name: str) -> str | None:
    speedup = found.speedup.get(f"vs_{name}")
    return None if speedup is None else _spelled(speedup)


def _own_dense(found: Measurements) -> str | None:
    """The dense model: ONNX Runtime's time over that of generated code."""
    blocks = found.distributions
    if OWN_DENSE not in blocks:
        return None
    processes = found.protocol.processes
    pair = (np.reshape(blocks[name], (processes, -1)) for name in (DENSE_ORT, OWN_DENSE))
    return _spelled(ratio(*pair, seed=found.protocol.seed))


def _spelled(speedup: Speedup) -> str:
    low, high = speedup.ci95
    return f"{speedup.median:.2f} ({low:.2f} to {high:.2f})"


def _both(own: Times, other: Times, name: str) -> str:
    """Generated code / ONNX Runtime."""
    return f"{getattr(own, name):.1f} / {getattr(other, name):.1f}"
