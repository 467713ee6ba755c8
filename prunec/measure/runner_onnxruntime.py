"""ONNX Runtime on the CPU as its users run it: all graph optimisations, sequential, `threads` intra-op threads.

Imported when a worker makes its runner, so that loading a model is timed without loading the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


class OnnxRuntimeRunner:
    """A `Runner` for .onnx files, external data included."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self._session: Any = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._feeds = dict(feeds)

    def run(self) -> object:
        return self._session.run(None, self._feeds)

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": ort.__version__}
