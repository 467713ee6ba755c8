"""The target `wasm`: a WebAssembly module, checked against ONNX Runtime in wasmtime and V8, timed in V8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import onnx_ir as ir

from prunec.backends.base import Artifact, BuildOptions, LayerTimes, Subject
from prunec.backends.cpu.checking import compare_model, one_by_one
from prunec.backends.cpu.generated import said_in_float
from prunec.backends.cpu.isa import RELAXED_WASM, WASM, Isa
from prunec.backends.cpu.provenance import processor, sources
from prunec.backends.cpu.referee import Referee
from prunec.backends.cross.feeds import describe
from prunec.backends.cross.half import as_storage, stored_as
from prunec.backends.cross.target import Cross, only_shapes
from prunec.backends.wasm.demo import check_words, read_words, write_demo
from prunec.backends.wasm.engine import WasmModel, check_engine, wasmtime_version
from prunec.backends.wasm.node import NodeModel, node, node_version
from prunec.backends.wasm.spec import Placement, WasmSpec
from prunec.backends.wasm.timing import beside
from prunec.cache import Cache
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.passes.sparsify import LayerPattern
from prunec.verify.records import LoweringRecord

ROWS = 8
PATTERNS = (f"block:{ROWS}x1", "block:4x1", "block:16x1", "channel")
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
_OWN = (
    "artifact.py", "engine.py", "layer_times.py", "link.py", "module/host.mjs", "module/index.js", "node.py",
    "runtime/wasm.c",
)  # fmt: skip
_WRITERS = ("kernel_table.py", "source.py", "timing.py", *(f"../wasm/{name}" for name in _OWN))
"""What its times depend on beside the kernels, from the folder of those."""
NOT_RUN = Diagnostic(
    "PC457",
    "not run here: nothing is known about the numbers and the speed of the compiled model",
    hint="compile without --no-build",
)
NO_NODE = Diagnostic(
    "PC467", "there is no Node here: checked and timed in wasmtime alone, not in V8", hint="install Node 18 or newer"
)
RELAXED = Diagnostic(
    "PC466",
    "relaxed SIMD: results may differ in their last digits from one processor or browser to the next",
    hint="leave out --relaxed-simd for the same bits everywhere",
)
_USAGE = """\
The folder wasm/ holds the compiled model as an npm package (version it, give it a name of yours, npm publish):

    import {{ load }} from "./wasm/index.js";          // browsers, workers, Node 18 or newer{relaxed}
    const model = await load();                       // streams model.wasm{beside}
    const outputs = model.run({{ {inputs} }});

index.d.ts has the types, model.inputs and model.outputs the shapes, which are fixed. Serve .wasm files as
application/wasm. No eval: a content security policy of script-src 'self' 'wasm-unsafe-eval' is enough.
An instance has {memory} of memory, {arena} of it for intermediate results, and never asks for more.
"""
_PAGE = """
wasm/demo/ is a page that runs it beside the dense model (wasm/demo/dense); nothing of it leaves the machine:

    python -m prunec.backends.wasm.serving wasm       # or python -m http.server --directory wasm; then /demo/
"""


class Wasm(Cross):
    """See the module."""

    name = "wasm"
    isa = WASM
    is_own_baseline = True
    rows = ROWS
    patterns: tuple[str, ...] = PATTERNS

    def check(self, options: BuildOptions) -> None:
        """PC440, PC452, PC463, PC470: options; PC453, PC455: nothing to build or to check with."""
        self.check_options(options)
        if options.threads != 1:
            message = "a WebAssembly module runs on one thread"
            raise PrunecError("PC440", message, where="--threads", hint="leave it out, or use --target cpu")
        if options.weights is not None and options.weights not in PLACEMENTS:
            message = f"there is no place {options.weights!r} for weights"
            raise PrunecError("PC440", message, where="--weights", hint=", ".join(PLACEMENTS))
        if options.demo is not None:
            read_words(options.demo)
        if options.builds:
            check_engine()

    def check_model(self, model: ir.Model, options: BuildOptions) -> None:
        """PC452: shapes that are not known; PC464: no generated code; PC465: too large; PC470: files of the page."""
        from prunec.backends.wasm.building import checked

        _, program = checked(model, self._isa(options), only_shapes(options))
        if options.demo is not None:
            inputs, outputs = (describe(tensors, ()) for tensors in (program.inputs, program.outputs))
            check_words(read_words(options.demo), inputs, outputs)

    @property
    def kind(self) -> str:
        return "wasmtime" if node() is None else "wasm-node"

    def check_timed(self, threads: int) -> None:
        """PC440, PC453, PC455: see `check`."""
        self.check(BuildOptions(threads=threads, precision=self.precision))

    def layer_times(
        self,
        model: ir.Model,
        levels: Sequence[Mapping[str, LayerPattern]],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
        progress: Callable[[int, int], None],
    ) -> Sequence[Mapping[str, LayerTimes]]:
        """Measured in the engine. PrunecError PC45x, PC464 where it has no code or cannot run it here."""
        from prunec.backends.wasm.layer_times import layer_times

        return layer_times(
            model, levels, self.isa, about=self.provenance(), shapes=shapes or {}, cache=cache, progress=progress
        )

    def write_timed(
        self,
        folder: Path,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        shapes: Mapping[str, Sequence[int]] | None,
    ) -> Path:
        """The folder `wasm` of a model whose values mean nothing. PrunecError as `layer_times`."""
        from prunec.backends.cpu.kernel_table import with_zeros
        from prunec.backends.wasm.building import build

        return build(with_zeros(model, layers), self.isa, folder, shapes or {}, name="timed").folder

    def provenance(self) -> str:
        return f"{self.isa.name} {sources(*_WRITERS)} {self.machine()}"

    def machine(self) -> str:
        command = node()
        return f"{wasmtime_version() if command is None else node_version(command)} on {processor()}"

    def _isa(self, options: BuildOptions) -> Isa:
        return RELAXED_WASM if options.relaxed_simd else WASM

    def write(self, folder: Path, subject: Subject, options: BuildOptions) -> Artifact:
        """The folder `wasm`, checked.

        Raises:
            GateError PC526: it computes other numbers than the pruned model in ONNX Runtime.
        """
        from prunec.backends.wasm.building import build

        isa, shapes = self._isa(options), only_shapes(options)
        placement: Placement = "embedded" if options.weights == "embedded" else "beside"
        storage = as_storage(options.storage)
        built = build(
            subject.model, isa, folder, shapes, name=_name(subject.name), placement=placement, storage=storage
        )
        spec = WasmSpec.read(built.folder)
        usage = _usage(spec)
        warnings: tuple[Diagnostic, ...] = (RELAXED,) if options.relaxed_simd else ()
        samples = one_by_one(subject.batches, built.ready)
        dense = None
        if options.demo is not None:
            with tempfile.TemporaryDirectory(prefix="prunec-dense-") as scratch:
                other = build(
                    subject.dense, isa, Path(scratch), shapes, name="dense", placement=placement, storage=storage
                )
                dense = write_demo(built.folder, other.folder, built.model, samples, read_words(options.demo))
            usage += _PAGE
        warnings += (*self.rounding(subject.model, built.model, samples), *said_in_float(built.in_float))
        if not options.builds:
            return Artifact(usage, warnings=(*warnings, NOT_RUN))
        lowering = check(built.model, built.folder, samples)
        if dense is not None:
            check(stored_as(subject.dense, storage), dense, samples[:1])
        if node() is None:
            warnings = (*warnings, NO_NODE)
        if not options.measures:
            return Artifact(usage, lowering, warnings=warnings)
        own = beside(built.folder, built.ready, dense or subject.dense, subject.layers, samples[0], everywhere=False)
        return Artifact(
            usage, lowering, contenders=own.contenders, feeds=own.feeds, warnings=warnings, scratch=own.scratch,
            layers=own.layers or None,
        )  # fmt: skip


def check(reference: ir.Model | Path, folder: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> LoweringRecord:
    """Compare with ONNX Runtime in wasmtime, and in Node where that is installed: the larger error of both.

    Raises:
        GateError PC526: an output differs by more than the tolerance, from float64 too.
    """
    referee = Referee(reference, samples)
    found = compare_model(reference, WasmModel(folder), samples, 1, referee)
    if node() is None:
        return found
    with NodeModel(folder) as model:
        other = compare_model(reference, model, samples, 1, referee)
    return max(found, other, key=lambda record: (record.decided_in == "float64", record.max_rel))


def _name(source: str) -> str:
    return source.removesuffix(".onnx")


def _usage(spec: WasmSpec) -> str:
    inputs = ", ".join(f'"{tensor.name}": …' for tensor in spec.inputs)
    return _USAGE.format(
        inputs=inputs, memory=_mib(spec.memory_bytes), arena=_mib(spec.arena_bytes),
        beside=" and model.weights beside it" if spec.weights == "beside" else "",
        relaxed=" with relaxed SIMD (Chrome 114, Firefox 145, Node 21)" if spec.simd == "relaxed" else "",
    )  # fmt: skip


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
