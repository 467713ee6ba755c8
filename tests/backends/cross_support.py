"""One kernel on a machine that this one is not: a program with a single step, linked like a package and run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Kernel
from prunec.backends.cpu.lower.program import Buffer, Program, Step, Tensor


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
        found = model.run(feeds)["result"]
        if node() is not None and not np.isnan(found).any():
            with NodeModel(folder) as other:
                assert np.array_equal(other.run(feeds)["result"], found)
    return found
