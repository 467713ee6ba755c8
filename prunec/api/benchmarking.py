"""`bench`: time a package again, on this machine, now."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.api.opening import PathLike, sample_of
from prunec.api.progress import Progress, silent
from prunec.diagnostics import PrunecError
from prunec.frontend.onnx import load
from prunec.measure.contender import DENSE, OWN, PRUNED, Contender
from prunec.measure.results import LayerTiming, Measurements
from prunec.measure.run import measure
from prunec.package.load import Package, load_package
from prunec.package.manifest import PLAN
from prunec.plan.plan import Plan


def bench(
    package: PathLike,
    *,
    source: PathLike | None = None,
    threads: int = 1,
    blocks: int = 30,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress = silent,
) -> Measurements:
    """Time the package's model on a synthetic input, against the dense `source` where that is given.

    Without `source` there is a latency, and a compiled model beside the pruned one in ONNX Runtime, but no speed-up
    over the dense one. A WebAssembly module is timed in V8 (Node) and wasmtime, with `source` against the dense model
    in the same kernels there; ONNX Runtime is no part of it. `input_shapes` are those of the input; without them a
    compiled model's first. The package is not changed.

    Raises:
        PrunecError PC61x: the package; PC017: a shape that it does not take; PC615: `source` is not
        what it was made from; PC510: threads or blocks.
        GateError PC512 to PC519: it could not be measured.
    """
    opened = load_package(Path(package))
    if opened.module_path is not None:
        if threads != 1:
            raise PrunecError("PC510", "a WebAssembly module runs on one thread", hint="leave out --threads")
        check_module_shapes(opened.module_path, input_shapes or {})
        return _bench_module(opened, opened.module_path, source, blocks=blocks, seed=seed, progress=progress)
    contenders = [Contender(PRUNED, opened.model_path.absolute())]
    if source is not None:
        check_source(opened, source)
        contenders.insert(0, Contender(DENSE, Path(source).absolute()))
    model = ir.load(opened.model_path)
    feeds = sample_of(model, _shapes(opened, input_shapes), seed)
    own = compiled_contenders(opened, source, feeds, threads)
    contenders += own.contenders
    with own.scratch or contextlib.nullcontext():
        found = measure(contenders, feeds, threads=threads, blocks=blocks, seed=seed, progress=progress)
    return found.with_layers(own.layers) if own.layers else found


def _bench_module(
    package: Package,
    folder: Path,
    source: PathLike | None,
    *,
    blocks: int,
    seed: int,
    progress: Progress,
) -> Measurements:
    """A WebAssembly module in every engine that is here."""
    from prunec.backends.cpu.lower.prepare import prepare
    from prunec.backends.wasm.spec import WasmSpec
    from prunec.backends.wasm.timing import beside

    if source is not None:
        check_source(package, source)
    model, layers = ir.load(package.model_path), Plan.load(package.path / PLAN).layers
    dense = None if source is None else _alike(package, prepare(load(source).model, WasmSpec.read(folder).sizes))
    own = beside(folder.absolute(), model, dense, layers, seed)
    with own.scratch or contextlib.nullcontext():
        found = measure(own.contenders, own.feeds, blocks=blocks, seed=seed, progress=progress)
    return found.with_layers(own.layers) if own.layers else found


def check_module_shapes(folder: Path, given: Mapping[str, Sequence[int]]) -> None:
    """PrunecError PC614 for shapes of inputs that the module was not compiled for."""
    from prunec.backends.wasm.spec import WasmSpec

    for tensor in WasmSpec.read(folder).inputs:
        if tensor.name in given and tuple(given[tensor.name]) != tensor.shape:
            message = f"{tensor.name} is {tensor.shape}, not {tuple(given[tensor.name])}"
            raise PrunecError("PC614", message, where="--input-shape", hint="generated code has fixed shapes")


def _shapes(package: Package, given: Mapping[str, Sequence[int]] | None) -> Mapping[str, Sequence[int]]:
    if given is not None or package.compiled_path is None:
        return given or {}
    from prunec.backends.cpu.compiled import compiled_shapes

    return compiled_shapes(package.compiled_path)[0]


@dataclass(frozen=True)
class Compiled:
    """What a package's compiled model brings to a measurement."""

    contenders: tuple[Contender, ...] = ()
    layers: tuple[LayerTiming, ...] = ()
    scratch: tempfile.TemporaryDirectory[str] | None = None


def compiled_contenders(
    package: Package, source: PathLike | None, feeds: Mapping[str, np.ndarray], threads: int
) -> Compiled:
    """The compiled model and, with `source` and the code generator, the dense one in the same kernels.

    Without the generator layers have no share of the peak, without one of the two nothing dense beside them.
    """
    folder = package.compiled_path
    if folder is None:
        return Compiled()
    from prunec.backends.cpu.compiled import CompiledModel
    from prunec.backends.cpu.isa import ISAS, X86_INT8
    from prunec.backends.cpu.lower.prepare import prepare
    from prunec.backends.cpu.timing import time_layers

    shapes = {name: array.shape for name, array in feeds.items()}
    ready = prepare(ir.load(package.model_path), shapes)
    layers = Plan.load(package.path / PLAN).layers
    folder = folder.absolute()
    ours = CompiledModel(folder, threads=threads)
    isa = (ISAS | X86_INT8)[ours.isa]
    if importlib.util.find_spec("tvm") is None:
        return Compiled((Contender(OWN, folder, "cpu"),), time_layers(ours, None, ready, layers, feeds, None))
    if source is None:
        from prunec.backends.cpu.companion import peak_of

        timed = time_layers(ours, None, ready, layers, feeds, peak_of(ready, isa, threads))
        return Compiled((Contender(OWN, folder, "cpu"),), timed)
    from prunec.backends.cpu.companion import beside

    dense = _alike(package, prepare(load(source).model, shapes))
    found = beside(folder, ready, dense, layers, feeds, isa, threads)
    return Compiled(found.contenders, found.layers, found.scratch)


def _alike(package: Package, dense: ir.Model) -> ir.Model:
    """The prepared model that the package was made from, in 8 bits where that is; only its time is asked for."""
    if package.verification is None or package.verification.quantisation is None:
        return dense
    from prunec.passes.quantise import unfitted

    return unfitted(dense, bits=package.verification.quantisation.weight_bits)


def check_source(package: Package, source: PathLike) -> None:
    """Raise PrunecError PC615 if the file `source` is not the one that the package was made from."""
    found = load(source).sha256
    if found != package.manifest.source.sha256:
        made_from = package.manifest.source
        raise PrunecError(
            "PC615",
            f"the package was made from another file (sha256 {made_from.sha256[:12]}…, not {found[:12]}…)",
            where=str(source),
            hint=f"its source was called {made_from.name}",
        )
