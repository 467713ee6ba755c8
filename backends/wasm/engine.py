"""Run a package in wasmtime, inside this process: what `verify` compares, and one of the two engines that are timed."""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from prunec.backends.cross.feeds import checked, results
from prunec.backends.cross.spec import TensorSpec
from prunec.backends.wasm.layout import MODULE, WEIGHTS
from prunec.backends.wasm.spec import WasmSpec
from prunec.diagnostics import PrunecError


def check_engine() -> None:
    """Raise PrunecError PC455 where wasmtime is not installed."""
    if importlib.util.find_spec("wasmtime") is None:
        message = "nothing here can run WebAssembly, so the compiled model cannot be checked"
        raise PrunecError("PC455", message, where="--target wasm", hint="pip install 'prunec[cross]'")


def wasmtime_version() -> str:
    """For people."""
    return f"wasmtime {version('wasmtime')}"


class WasmModel:
    """One instance of the package in the folder `wasm`.

    Raises:
        PrunecError PC455: no wasmtime; PC610: no package; PC622: the module or the weights are refused.
    """

    def __init__(self, folder: Path) -> None:
        check_engine()
        import wasmtime

        self.spec = WasmSpec.read(folder)
        config = wasmtime.Config()
        config.wasm_relaxed_simd = True
        self._store = wasmtime.Store(wasmtime.Engine(config))
        try:
            module = wasmtime.Module.from_file(self._store.engine, str(folder / MODULE))
            self._exports: Any = wasmtime.Instance(self._store, module, []).exports(self._store)
        except (wasmtime.WasmtimeError, OSError) as reason:
            message = f"the module cannot be loaded: {str(reason).splitlines()[0]}"
            raise PrunecError("PC622", message, where=str(folder / MODULE), hint="compile the model again") from None
        self._memory: Any = self._exports["memory"]
        if self.spec.weights == "beside":
            self._fill(folder / WEIGHTS)
        self._check(self._call("prunec_create"), folder)

    def _call(self, name: str, *arguments: int) -> int:
        return int(self._exports[name](self._store, *arguments))

    def _array(self, address: int, count: int, dtype: str) -> np.ndarray:
        """A view of the memory, which never grows."""
        base = ctypes.addressof(self._memory.data_ptr(self._store).contents) + (address & 0xFFFFFFFF)
        size = count * np.dtype(dtype).itemsize
        held: Any = (ctypes.c_uint8 * size).from_address(base)
        found: np.ndarray = np.frombuffer(held, np.dtype(dtype), count)
        return found

    def _fill(self, weights: Path) -> None:
        try:
            data = weights.read_bytes()
        except OSError as reason:
            raise PrunecError("PC622", f"the weights cannot be read: {reason.strerror}", where=str(weights)) from None
        if len(data) != self.spec.weights_bytes:
            message = f"the weights have {len(data)} bytes, not the {self.spec.weights_bytes} of this model"
            raise PrunecError("PC622", message, where=str(weights), hint="compile the model again")
        self._array(self._call("prunec_weights"), len(data), "uint8")[:] = np.frombuffer(data, np.uint8)

    def _check(self, status: int, where: Path | None = None) -> None:
        if status:
            text = (
                bytes(self._array(self._call("prunec_message"), 256, "uint8")).split(b"\0")[0].decode(errors="replace")
            )
            place = None if where is None else str(where)
            raise PrunecError("PC622", f"the compiled model refused: {text or status}", where=place)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. PC614, PC621 for inputs that are not the model's; PC622 where it refuses."""
        self.feed(feeds)
        self.step()
        return self.outputs()

    def feed(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Copy the inputs into the instance."""
        for number, (tensor, array) in enumerate(zip(self.spec.inputs, checked(self.spec, feeds), strict=True)):
            self._view("prunec_input", number, tensor)[:] = array.reshape(-1)

    def step(self) -> None:
        """One run on what was fed."""
        self._check(self._call("prunec_run", 0, len(self.spec.steps)))

    def profile(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, int]]:
        """One run on `feeds`: the nodes of every step, and its nanoseconds."""
        self.feed(feeds)
        found = []
        for number, names in enumerate(self.spec.steps):
            start = time.perf_counter_ns()
            self._check(self._call("prunec_run", number, number + 1))
            found.append((names, time.perf_counter_ns() - start))
        return found

    def outputs(self) -> dict[str, np.ndarray]:
        """Copies of what the last run gave."""
        arrays = [self._view("prunec_output", n, tensor).copy() for n, tensor in enumerate(self.spec.outputs)]
        return results(self.spec, arrays)

    def _view(self, find: str, number: int, tensor: TensorSpec) -> np.ndarray:
        return self._array(self._call(find, number), tensor.elements, tensor.dtype)

    def close(self) -> None:
        """The instance goes with the object."""
