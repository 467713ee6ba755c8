"""Write the folder `arm64`: libraries, weights, header, example, and a runner that needs nothing of the system."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prunec.backends.arm64.layout import ARCHIVE, FOLDER, RUNNER
from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import write_object
from prunec.backends.cpu.layout import EXAMPLE, HEADER, LIBRARY, WEIGHTS
from prunec.backends.cpu.link import SHARED, SOURCES, write_sources
from prunec.backends.cpu.lower.memory import plan_arena
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.source import header_source, kernel_sizes, kernels_of, program_source, weights_of
from prunec.backends.cross.feeds import describe
from prunec.backends.cross.half import Storage
from prunec.backends.cross.spec import SPEC, ModelSpec
from prunec.backends.cross.zig import compile_c
from prunec.package.jsonfile import dumps

RUNNER_SOURCE = Path(__file__).parent / "runtime" / "runner.c"
_CPU = Path(__file__).parents[1] / "cpu" / "runtime"
_LINUX, STATIC = "aarch64-linux-gnu.2.28", "aarch64-linux-musl"
"""Any Linux of the last years has this glibc or a newer one; the runner brings its own library."""


def write_folder(
    program: Program, bools: Sequence[str], isa: Isa, package: Path, *, name: str, storage: Storage = "fp32"
) -> Path:
    """Write `package`/arm64 and return it. `bools`: names of inputs and outputs that are bools.

    Raises:
        PrunecError PC453: no C compiler, or it fails.
    """
    kernel_sizes(program)
    weights, kernels = weights_of([program], in_halves=storage == "fp16"), kernels_of([program])
    folder = package / FOLDER
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="prunec-arm64-") as scratch:
        work = Path(scratch)
        objects = ["kernels.o"] if kernels else []
        if kernels:
            write_object(kernels, isa, work / "kernels.o")
        write_sources(program_source([program], weights, isa), work)
        shutil.copyfile(RUNNER_SOURCE, work / RUNNER_SOURCE.name)
        sources = [*SOURCES, "program.c"]
        compiled = [name.replace(".c", ".o") for name in sources]
        common = ["-std=gnu11", "-O2", "-pthread"]
        for source, result in zip(sources, compiled, strict=True):
            compile_c(["cc", "-target", _LINUX, *common, "-fPIC", "-g0", "-c", source, "-o", result], work)
        compile_c(["ar", "rcsD", ARCHIVE, *compiled, *objects], work)
        compile_c(["cc", "-target", _LINUX, *common, *SHARED, *compiled, *objects, "-lm", "-o", LIBRARY], work)
        everything = [*sources, RUNNER_SOURCE.name, *objects]
        compile_c(["cc", "-target", STATIC, *common, "-static", "-s", *everything, "-lm", "-o", RUNNER], work)
        for file in (ARCHIVE, LIBRARY, RUNNER):
            shutil.copyfile(work / file, folder / file)
    (folder / RUNNER).chmod(0o755)
    weights.write(folder / WEIGHTS)
    shutil.copyfile(_CPU / EXAMPLE, folder / EXAMPLE)
    header = (_CPU / HEADER).read_text(encoding="utf-8")
    (folder / HEADER).write_text(header_source(header, [program]), encoding="utf-8")
    spec = ModelSpec(
        name=name, inputs=describe(program.inputs, bools), outputs=describe(program.outputs, bools),
        storage=storage, weights_bytes=weights.stored_bytes, arena_bytes=plan_arena(program.steps)[1],
        steps=tuple(", ".join(step.nodes) for step in program.steps),
    )  # fmt: skip
    (folder / SPEC).write_bytes(dumps(spec.model_dump(mode="json")).encode())
    return folder
