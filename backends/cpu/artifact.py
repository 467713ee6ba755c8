"""Write what runs: the shared library, its weights, the header and an example in C."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import write_object
from prunec.backends.cpu.link import link
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.source import kernel_sizes, program_source, weights_of

LIBRARY = "libmodel.so"
WEIGHTS = "model.weights"
HEADER = "prunec.h"
EXAMPLE = "example.c"
_RUNTIME = Path(__file__).parent / "runtime"


def write_artifact(program: Program, isa: Isa, folder: Path) -> None:
    """Compile `program` into `folder`.

    Raises:
        PrunecError PC405: no C compiler, or it fails.
    """
    kernel_sizes(program)
    weights = weights_of(program)
    with tempfile.TemporaryDirectory(prefix="prunec-cpu-") as name:
        work = Path(name)
        kernels = program.kernels()
        objects = [Path("kernels.o")] if kernels else []
        if kernels:
            write_object(kernels, isa, work / "kernels.o")
        link(objects, program_source(program, weights, isa), folder / LIBRARY, work)
    weights.write(folder / WEIGHTS)
    for source in (HEADER, EXAMPLE):
        shutil.copyfile(_RUNTIME / source, folder / source)
