"""The targets `cpu`, `x86-avx2` and `x86-avx512`: generated code, checked against ONNX Runtime, timed beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from prunec.backends.base import Artifact, BuildOptions, LayerTimes, Subject
from prunec.backends.cpu.checking import compare, samples_for
from prunec.backends.cpu.generated import Generated, said_in_float
from prunec.backends.cpu.isa import AVX2, AVX512, Isa, check_isa, host_isa
from prunec.backends.cpu.link import c_compiler
from prunec.backends.cpu.provenance import processor, sources
from prunec.cache import Cache, cache_root
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.passes.sparsify import LayerPattern

if TYPE_CHECKING:
    from prunec.backends.cpu.lower.lowering import Refusal
    from prunec.backends.cpu.parts import Split

ROWS = 16
PATTERNS = (f"block:{ROWS}x1", "block:32x1", "block:8x1", "block:4x1", "block:4x4", "channel")
LEVELS = ("none", "quick", "full")
"""Of tuning."""
NOT_RUN = Diagnostic(
    "PC457",
    "not run here: nothing is known about the numbers and the speed of the compiled model",
    hint="compile without --no-build on a machine with these instructions",
)
_USAGE = """\
The folder cpu/ holds the compiled model for {isa}. In Python (pip install prunec; TVM is not needed):

    import prunec
    outputs = prunec.load("this folder").run(feeds)

Its shapes are fixed (parts.json has them); where the model's batch is dynamic, it is compiled for a batch of 1,
unless --input-shape said otherwise.
"""
_IN_C = """
In C, from that folder (prunec.h has the interface, example.c a complete program):

    cc example.c ./libmodel.so -Wl,-rpath,'$ORIGIN' -o example && ./example model.weights
"""
_IN_PARTS = """
Some of its operators have no generated code and run in ONNX Runtime in between (parts.json lists them, with
reasons), so it cannot be used from C as a whole; its generated parts can.
"""


class Cpu(Generated):
    """See the module. The machine's own instruction set, unless the target names one."""

    name = "cpu"
    kind = "cpu"
    is_own_baseline = False
    rows = ROWS
    specialises = True

    def isa(self) -> Isa:
        return host_isa()

    @property
    def patterns(self) -> tuple[str, ...]:
        return PATTERNS

    def check(self, options: BuildOptions) -> None:
        """PC440, PC452, PC463: options; PC451: instructions; PC453, PC455: nothing to build with."""
        self.check_options(options)
        isa = self.isa()
        c_compiler()
        if options.tune not in LEVELS:
            message = f"there is no level of tuning {options.tune!r}"
            raise PrunecError("PC463", message, where="--tune", hint=", ".join(LEVELS))
        if options.tune != "none" and not options.builds:
            message = "kernels are measured on the machine that will run them"
            raise PrunecError("PC463", message, where="--tune", hint="leave out one of --tune and --no-build")
        if options.builds:
            check_isa(isa)

    def check_model(self, model: ir.Model, options: BuildOptions) -> None:
        """PC452: shapes that are not known; PC454: nothing that code can be generated for; PC460: several shapes."""
        from prunec.backends.cpu.building import split_for

        split_for(model, self.isa(), options.shapes)

    def times(
        self,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
    ) -> Mapping[str, LayerTimes]:
        """Measured here. PrunecError PC45x where this machine cannot build or run the code, or shapes are not known."""
        self.check_timed(threads)
        from prunec.backends.cpu.kernel_table import layer_times

        return layer_times(model, layers, self.isa(), threads=threads, shapes=shapes, cache=cache, form=self.form)

    def layer_times(
        self,
        model: ir.Model,
        levels: Sequence[Mapping[str, LayerPattern]],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
        progress: Callable[[int, int], None],
    ) -> Sequence[Mapping[str, LayerTimes]]:
        """As `times`."""
        found = []
        for number, layers in enumerate(levels):
            progress(number, len(levels))
            found.append(self.times(model, layers, threads, shapes, cache))
        return found

    def check_timed(self, threads: int) -> None:
        """PrunecError PC45x where this machine cannot build or run the code."""
        self.check(BuildOptions(precision=self.precision))

    def machine(self) -> str:
        return processor()

    def write_timed(
        self,
        folder: Path,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        shapes: Mapping[str, Sequence[int]] | None,
    ) -> Path:
        """The folder `cpu` of a model whose values mean nothing. PrunecError PC45x as `times`."""
        from prunec.backends.cpu.building import build
        from prunec.backends.cpu.kernel_table import with_zeros

        given = () if shapes is None else (shapes,)
        return build(self.form(with_zeros(model, layers)), self.isa(), folder, given).folder

    def provenance(self) -> str:
        lower = sorted(f"lower/{path.name}" for path in (Path(__file__).parent / "lower").glob("*.py"))
        return f"{self.isa().name} {sources('building.py', 'artifact.py', 'isa.py', 'quad_weights.py', *lower)}"

    def write(self, folder: Path, subject: Subject, options: BuildOptions) -> Artifact:
        """The folder `cpu`, checked.

        Raises:
            GateError PC526: it computes other numbers than the pruned model in ONNX Runtime.
        """
        from prunec.backends.cpu.building import build
        from prunec.backends.cpu.companion import beside
        from prunec.backends.cpu.tuning import Tuning

        isa = self.isa()
        store = Cache(cache_root() / "kernels") if options.caches else None
        tuning = Tuning(isa, options.tune, options.threads, store, options.progress)
        built = build(subject.model, isa, folder, options.shapes, tuning)
        usage = _USAGE.format(isa=isa.name) + (_IN_C if built.split.is_whole else _IN_PARTS)
        warnings = tuple(_said(built.split))
        if not options.builds:
            return Artifact(usage, warnings=(*warnings, NOT_RUN))
        samples = samples_for(subject.batches, built.ready)
        lowering = compare(subject.model, built.folder, list(chain.from_iterable(samples)), options.threads)
        if not options.measures:
            return Artifact(usage, lowering, warnings=warnings)
        (feeds, *_), *others = samples
        companion = beside(
            built.folder, built.ready[0], subject.dense, subject.layers, feeds, isa, options.threads, tuning
        )
        return Artifact(
            usage, lowering, contenders=companion.contenders, feeds=feeds, warnings=warnings,
            scratch=companion.scratch, beside_onnxruntime=True, layers=companion.layers or None,
            other_feeds=tuple(own[0] for own in others),
        )  # fmt: skip


class Avx2(Cpu):
    name = "x86-avx2"

    def isa(self) -> Isa:
        return AVX2


class Avx512(Cpu):
    name = "x86-avx512"

    def isa(self) -> Isa:
        return AVX512


def _said(split: Split) -> Iterator[Diagnostic]:
    if not split.is_whole:
        yield _partitioned(split.refusals)
    yield from said_in_float(split.in_float)


def _partitioned(refusals: Sequence[Refusal]) -> Diagnostic:
    kinds = list(dict.fromkeys(f"{refusal.node.op_type} ({refusal.reason})" for refusal in refusals))
    shown = "; ".join(kinds[:4]) + (f" and {len(kinds) - 4} more" if len(kinds) > 4 else "")
    count = f"{len(refusals)} nodes" if len(refusals) > 1 else "one node"
    return Diagnostic("PC456", f"{count} without generated code run in ONNX Runtime: {shown}")
