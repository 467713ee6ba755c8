"""From kernels to machine code: an object file for linking, or functions to call in this process (tests, tuning)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TVM_BIND_THREADS", "0")  # else the first parallel kernel pins this whole process to one CPU
import tvm
from tvm import tirx
from tvm.tirx import compilation_pipeline

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Kernel, prim_func
from prunec.backends.cpu.kernels.single_thread import in_turn


def _few_passes(*, checks: bool) -> tuple[Any, Any, Any]:
    """What our kernels need of TVM's own sequence: they have no blocks, no virtual threads and nothing to vectorise.

    Every pass visits all of a kernel, and LLVM simplifies better: this takes a fraction of the time. Without `checks`
    a kernel trusts its arguments, which the lowering proved (`source.kernel_sizes`); they are half of a small one.
    """
    last = () if checks else (tirx.transform.SkipAssert(),)

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def lowered(module: Any, _: Any) -> Any:
        steps = (
            tirx.transform.FlattenBuffer(), tirx.transform.NarrowDataType(32),
            tirx.transform.StmtSimplify(),  # without it LLVM leaves some sums in memory
            tirx.transform.StorageRewrite(), tirx.transform.VerifyMemory(), tirx.transform.AnnotateEntryFunc(),
            tirx.transform.SplitHostDevice(), tirx.transform.MakePackedAPI(),
            *last,
        )  # fmt: skip
        return tvm.ir.transform.Sequential(steps)(module)

    return lowered, compilation_pipeline.finalize_host_passes, compilation_pipeline.finalize_device_passes


compilation_pipeline.register_tir_pipeline("prunec", partial(_few_passes, checks=True))
compilation_pipeline.register_tir_pipeline("prunec-unchecked", partial(_few_passes, checks=False))


def _compiled(kernels: Iterable[Kernel], isa: Isa) -> Any:
    functions = {kernel.symbol(): prim_func(kernel, isa) for kernel in kernels}
    if not isa.has_threads:
        functions = {name: function.with_body(in_turn(function.body)) for name, function in functions.items()}
    features = {"mattr": list(isa.attributes), "vector-width": 8 * isa.vector_bytes} if isa.attributes else {}
    target = tvm.target.Target({"kind": "llvm", "mcpu": isa.mcpu, "mtriple": isa.triple, **features})
    pipeline = "prunec" if isa.has_threads else "prunec-unchecked"
    try:
        return tvm.tirx.build(tvm.IRModule(functions), target=target, pipeline=pipeline)
    except RuntimeError as reason:
        if str(reason):
            raise
        raise KeyboardInterrupt from reason  # what becomes of Ctrl-C in a pass: an error without a word


def write_object(kernels: Iterable[Kernel], isa: Isa, path: Path) -> None:
    """One object file; a kernel is `int __tvm_ffi_<symbol>(void*, TVMFFIAny* args, int32_t n, TVMFFIAny* result)`."""
    _compiled(kernels, isa).write_to_file(str(path), "o")


class Callable:
    """One kernel, ready to run on numpy arrays in this process."""

    def __init__(self, kernel: Kernel, isa: Isa, module: Any = None) -> None:
        self.kernel = kernel
        self._function = (_compiled([kernel], isa) if module is None else module)[kernel.symbol()]

    def prepare(self, *arrays: np.ndarray) -> list[Any]:
        """Copies of the arrays as arguments for `run`, flat, in the order of `kernel.arguments()`, longer ones cut.

        Raises AssertionError where a dtype is another one.
        """
        prepared = []
        for argument, array in zip(self.kernel.arguments(), arrays, strict=True):
            assert array.dtype == argument.dtype, f"{argument.name} is {array.dtype}, not {argument.dtype}"
            flat = np.zeros(argument.size, argument.dtype)
            given = array.reshape(-1)[: argument.size]
            flat[: given.size] = given
            prepared.append(tvm.runtime.tensor(flat))
        return prepared

    def run(self, prepared: list[Any]) -> None:
        self._function(*prepared)

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """What the written buffer, the last one, holds after a run."""
        prepared = self.prepare(*arrays)
        self.run(prepared)
        result: np.ndarray = prepared[-1].numpy()
        return result


def callables(kernels: Iterable[Kernel], isa: Isa, *, threads: int) -> dict[str, Callable]:
    """Several kernels by symbol, compiled together, for parallel loops on so many threads (of the process)."""
    own = {kernel.symbol(): kernel for kernel in kernels}
    tvm.get_global_func("runtime.config_threadpool")(1, threads)
    module = _compiled(own.values(), isa)
    return {symbol: Callable(kernel, isa, module) for symbol, kernel in own.items()}
