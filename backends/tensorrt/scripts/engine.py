"""Run a serialised TensorRT engine on numpy arrays: buffers on the GPU, one stream, one execution context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from prunec.backends.tensorrt.scripts.build import BuildError, load_tensorrt, make_logger
from prunec.backends.tensorrt.scripts.device import Driver


class Engine:
    """`upload` once, `run` as often as wanted, `download` what came of it. Shapes are those of the feeds."""

    def __init__(self, plan: bytes, feeds: Mapping[str, np.ndarray]) -> None:
        self._driver = Driver()
        trt = load_tensorrt()
        self._logger = make_logger(trt)
        runtime = trt.Runtime(self._logger)
        self._engine: Any = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BuildError("the engine cannot be read: it is for another GPU or TensorRT", self._logger.errors())
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise BuildError("no execution context: too little GPU memory?", self._logger.errors())
        self._stream = self._driver.stream()
        self._outputs: dict[str, np.ndarray] = {}
        self._buffers: dict[str, int] = {}
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in inputs:
            dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
            array = np.ascontiguousarray(feeds[name], dtype=dtype)
            if not self._context.set_input_shape(name, array.shape):
                raise BuildError(f"{name} cannot be {array.shape}: it is outside of the engine's range of shapes")
            self._bind(name, array.nbytes)
            self._driver.upload(self._buffers[name], array)
        for name in names:
            if name not in inputs:
                dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
                self._outputs[name] = np.empty(tuple(self._context.get_tensor_shape(name)), dtype)
                self._bind(name, self._outputs[name].nbytes)

    def run(self) -> None:
        """Once, to completion."""
        if not self._context.execute_async_v3(self._stream):
            raise BuildError("the engine does not run", self._logger.errors())
        self._driver.wait(self._stream)

    def download(self) -> dict[str, np.ndarray]:
        """Outputs by name, of the last run."""
        for name, array in self._outputs.items():
            self._driver.download(self._buffers[name], array)
        return {name: array.copy() for name, array in self._outputs.items()}

    def _bind(self, name: str, nbytes: int) -> None:
        self._buffers[name] = self._driver.allocate(nbytes)
        self._context.set_tensor_address(name, self._buffers[name])
