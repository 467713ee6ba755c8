"""The target `arm64`: libraries for 64-bit ARM, checked under qemu, never timed here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from prunec.backends.arm64.counting import step_counts
from prunec.backends.arm64.emulated import EmulatedModel, emulator, qemu
from prunec.backends.arm64.layout import RUNNER
from prunec.backends.base import Artifact, BuildOptions, LayerTimes, Subject
from prunec.backends.cpu.checking import compare_model, one_by_one
from prunec.backends.cpu.generated import said_in_float
from prunec.backends.cpu.isa import ARM64
from prunec.backends.cpu.layout import LIBRARY
from prunec.backends.cpu.provenance import sources
from prunec.backends.cross.half import as_storage, stored_as
from prunec.backends.cross.spec import ModelSpec
from prunec.backends.cross.target import Cross, only_shapes
from prunec.cache import Cache
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.measure.modelled_shares import write_layers
from prunec.passes.sparsify import LayerPattern
from prunec.verify.records import LoweringRecord

ROWS = 4
PATTERNS = (f"block:{ROWS}x1", "block:8x1", "block:16x1", "channel")
_OWN = ("artifact.py", "counting.py", "modelled.py", "runtime/count.c")
_MODELS = ("../cross/cost_model.py", *(f"../arm64/{name}" for name in _OWN))
"""What its times depend on beside the kernels, from the folder of those."""
NOT_RUN = Diagnostic(
    "PC457",
    "not run here: nothing is known about the numbers and the speed of the compiled model",
    hint="compile without --no-build where qemu-user is installed",
)
NOT_TIMED = Diagnostic(
    "PC468",
    "not executed on a device here: the numbers were checked under qemu, and times are modelled where there are any",
    hint="the runner in the package times it on the device; `prunec bench OUT` prints the command",
)
_USAGE = """\
The folder arm64/ holds the compiled model for {machines}: libmodel.so (glibc 2.28 or newer), libmodel.a, the
weights ({weights} MB), the C interface (prunec.h), and an example. The library without weights has {code:.2f} MB;
{arena:.2f} MB hold intermediate results. On the device:

    cc example.c ./libmodel.so -Wl,-rpath,'$ORIGIN' -o example && ./example model.weights
    ./runner model.weights THREADS RUNS > times.csv     # static, needs nothing; one line for every step

and back here `prunec bench OUT --device-csv times.csv` puts its times into the report.

Android has another C library than Linux: what was built here for Linux was not tried there, except that the static
runner needs none (adb push arm64 /data/local/tmp; adb shell /data/local/tmp/arm64/runner ...).

NOT EXECUTED ON A DEVICE: {checked}; no speed was measured.
"""


class Arm64(Cross):
    """See the module."""

    name = "arm64"
    isa = ARM64
    rows = ROWS
    patterns: tuple[str, ...] = PATTERNS
    machines = "64-bit ARM Linux"
    is_own_baseline = True

    def check(self, options: BuildOptions) -> None:
        """PC440, PC452, PC463: options; PC453, PC455: nothing to build or to check with."""
        self.check_options(options)
        if options.builds:
            emulator()

    def check_model(self, model: ir.Model, options: BuildOptions) -> None:
        """PC452: shapes that are not known; PC464: operators without generated code."""
        from prunec.backends.cross.lowered import lowered

        lowered(model, self.isa, only_shapes(options))

    def check_timed(self, threads: int) -> None:
        """PC440, PC453, PC455: times are modelled for one thread, from what is built and counted here."""
        if threads != 1:
            message = "times of arm64 are modelled, and for one thread"
            raise PrunecError("PC440", message, where="--threads", hint="leave it out")
        self.check_options(BuildOptions(precision=self.precision))
        if qemu() is None:
            raise _uncounted()

    def layer_times(
        self,
        model: ir.Model,
        levels: Sequence[Mapping[str, LayerPattern]],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
        progress: Callable[[int, int], None],
    ) -> Sequence[Mapping[str, LayerTimes]]:
        """Modelled, as `times`."""
        return self.modelled(model, levels, shapes, progress)

    def write_timed(
        self,
        folder: Path,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        shapes: Mapping[str, Sequence[int]] | None,
    ) -> Path:
        """What its products are modelled to take. PC452, PC464 where it has no code."""
        from prunec.backends.cpu.kernel_table import with_zeros
        from prunec.backends.cross.cost_model import node_times
        from prunec.backends.cross.lowered import lowered

        _, program = lowered(with_zeros(model, layers), self.isa, shapes or {})
        return write_layers(folder, node_times(program, self.isa))

    def rest_us(self, model: ir.Model, shapes: Mapping[str, Sequence[int]] | None) -> float:
        """From instructions that qemu counts. PC453, PC455 where there is no compiler or no qemu."""
        from prunec.backends.arm64.artifact import write_folder
        from prunec.backends.arm64.modelled import rest_us
        from prunec.backends.cross.lowered import bools, lowered

        ready, program = lowered(model, self.isa, shapes or {})
        with tempfile.TemporaryDirectory(prefix="prunec-rest-") as name:
            folder = write_folder(program, bools(ready), self.isa, Path(name), name="counted")
            found = rest_us(program, step_counts(folder), self.isa)
        if found is None:
            raise _uncounted()
        return found

    def provenance(self) -> str:
        return f"{self.isa.name} {sources('source.py', *_MODELS)} {self.core}"

    def machine(self) -> str:
        return self.core.label

    def write(self, folder: Path, subject: Subject, options: BuildOptions) -> Artifact:
        """The folder `arm64`, checked.

        Raises:
            GateError PC526: it computes other numbers than the pruned model in ONNX Runtime.
        """
        from prunec.backends.arm64.artifact import write_folder
        from prunec.backends.arm64.modelled import modelled
        from prunec.backends.cross.lowered import bools, lowered

        storage = as_storage(options.storage)
        model = stored_as(subject.model, storage)
        ready, program = lowered(model, self.isa, only_shapes(options))
        name = subject.name.removesuffix(".onnx")
        own = write_folder(program, bools(ready), self.isa, folder, name=name, storage=storage)
        samples = one_by_one(subject.batches, ready)
        said = (*self.rounding(subject.model, model, samples), *said_in_float(program.in_float))
        if not options.builds:
            return Artifact(self._usage(own, is_checked=False), warnings=(*said, NOT_RUN))
        lowering = check(model, own, samples)
        times = None
        if options.measures:
            dense = lowered(subject.dense, self.isa, only_shapes(options))
            times = modelled(own, program, ready, dense, subject.layers, self.isa)
        return Artifact(self._usage(own, is_checked=True), lowering, warnings=(*said, NOT_TIMED), modelled=times)

    def _usage(self, folder: Path, *, is_checked: bool) -> str:
        spec = ModelSpec.read(folder)
        assert (folder / RUNNER).exists()
        checked = "the outputs were compared with ONNX Runtime under qemu" if is_checked else "nothing was run at all"
        return _USAGE.format(
            weights=f"{spec.weights_bytes / 1e6:.1f}", code=(folder / LIBRARY).stat().st_size / 1e6,
            arena=spec.arena_bytes / 1e6, checked=checked, machines=self.machines,
        )  # fmt: skip


def _uncounted() -> PrunecError:
    message = "instructions cannot be counted here, and times of whole models are made of those"
    hint = "apt install qemu-user (with plugins, as Debian builds it); or give --sparsity"
    return PrunecError("PC455", message, where="--target arm64", hint=hint)


def check(reference: ir.Model | Path, folder: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> LoweringRecord:
    """Compare with ONNX Runtime under qemu.

    Raises:
        GateError PC526: an output differs by more than the tolerance, from float64 too.
    """
    return compare_model(reference, EmulatedModel(folder), samples, 1)
