"""One kernel on a machine that this one is not: a program with a single step, linked like a package and run."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Kernel
from prunec.backends.cpu.lower.program import Buffer, Program, Step, Tensor
from prunec.backends.cross.zig import compile_c


def single_step(kernel: Kernel) -> Program:
    """A program whose inputs are the kernel's arguments, and whose output is what it writes."""
    *read, written = kernel.arguments()
    buffers = [Buffer("input", a.dtype, a.size, number=n) for n, a in enumerate(read)]
    result = Buffer("output", written.dtype, written.size)
    tensors = [Tensor((b.elements,), b.dtype, b, 0, (1,)) for b in (*buffers, result)]
    inputs = {argument.name: tensor for argument, tensor in zip(read, tensors, strict=False)}
    return Program(inputs, {"result": tensors[-1]}, [Step(kernel, (*buffers, result), ("kernel",))])


def fitted(kernel: Kernel, arrays: tuple[np.ndarray, ...]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays flat and as long as the kernel wants them, the last one apart: what the result holds before."""
    found = []
    for argument, array in zip(kernel.arguments(), arrays, strict=True):
        assert array.dtype == argument.dtype, f"{argument.name} is {array.dtype}, not {argument.dtype}"
        flat = np.zeros(argument.size, argument.dtype)
        given = array.reshape(-1)[: argument.size]
        flat[: given.size] = given
        found.append(flat)
    return {a.name: flat for a, flat in zip(kernel.arguments(), found[:-1], strict=False)}, found[-1]


_FILL = " if (out[i]) memset(out[i], 0xff, prunec_output(i)->bytes);"


@cache
def _runtime() -> Path:
    """The run time and the runner for 64-bit ARM, compiled once."""
    from prunec.backends.arm64.artifact import RUNNER_SOURCE, STATIC
    from prunec.backends.cpu.link import SOURCES, write_sources

    work = Path(tempfile.mkdtemp(prefix="prunec-runtime-"))
    atexit.register(shutil.rmtree, work, ignore_errors=True)
    write_sources("", work)
    zeros = "out[i] = calloc(prunec_output(i)->bytes + 1, 1);"
    text = RUNNER_SOURCE.read_text(encoding="utf-8")
    assert zeros in text
    (work / "runner.c").write_text(f"#include <string.h>\n{text.replace(zeros, zeros + _FILL)}", encoding="utf-8")
    for source in (*SOURCES, "runner.c"):
        compile_c(["cc", "-target", STATIC, "-std=gnu11", "-O2", "-pthread", "-c", source], work)
    return work


def run_arm64(kernel: Kernel, isa: Isa, *arrays: np.ndarray) -> np.ndarray:
    """Under qemu. Floats that the kernel does not write are NaN afterwards."""
    from prunec.backends.arm64.artifact import STATIC
    from prunec.backends.arm64.emulated import emulator
    from prunec.backends.cpu.kernels.compiler import write_object
    from prunec.backends.cpu.source import program_source, weights_of

    feeds, before = fitted(kernel, arrays)
    program = single_step(kernel)
    weights = weights_of([program])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for file in _runtime().iterdir():
            shutil.copyfile(file, work / file.name)
        (work / "program.c").write_text(program_source([program], weights, isa))
        write_object([kernel], isa, work / "kernels.o")
        weights.write(work / "weights")
        objects = [file.name for file in sorted(work.glob("*.o"))]
        arguments = ["-std=gnu11", "-O2", "-pthread", "-static", "program.c", *objects, "-lm", "-o", "run"]
        compile_c(["cc", "-target", STATIC, *arguments], work)
        for number, array in enumerate(feeds.values()):
            (work / f"input{number}").write_bytes(array.tobytes())
        files = [str(work / f"input{number}") for number in range(len(feeds))]
        command = [*emulator(), str(work / "run"), str(work / "weights"), "2", "0", *files, str(work / "result")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = np.fromfile(work / "result", before.dtype)
    return found


def run_wasm(kernel: Kernel, isa: Isa, *arrays: np.ndarray) -> np.ndarray:
    """In wasmtime; in Node it has to give the same bits, unless those may differ by host."""
    from prunec.backends.wasm.artifact import write_folder
    from prunec.backends.wasm.engine import WasmModel
    from prunec.backends.wasm.node import NodeModel, node

    feeds, before = fitted(kernel, arrays)
    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(single_step(kernel), [], isa, Path(name), name="kernel")
        model = WasmModel(folder)
        model._view("prunec_output", 0, model.spec.outputs[0])[:] = before
        found = model.run(feeds)["result"].copy()
        if node() is not None and not np.isnan(found).any():
            with NodeModel(folder) as other:
                model._view("prunec_output", 0, model.spec.outputs[0])[:] = 0  # as it is there
                np.testing.assert_array_equal(other.run(feeds)["result"], model.run(feeds)["result"])
    return found
