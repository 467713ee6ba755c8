"""A TensorRT engine as a contender of `prunec.measure`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prunec.backends.tensorrt.scripts.build import load_tensorrt
from prunec.backends.tensorrt.scripts.device import find_gpu
from prunec.backends.tensorrt.scripts.engine import Engine


class EngineRunner:
    """A `Runner` for .engine files. Inputs are on the GPU before the clock starts; a run ends when the GPU is done."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        self._engine = Engine(model.read_bytes(), feeds)

    def run(self) -> object:
        self._engine.run()
        return None

    def versions(self) -> dict[str, str]:
        return {"tensorrt": str(load_tensorrt().__version__), "gpu": find_gpu().name}
