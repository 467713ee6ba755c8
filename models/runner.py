"""What a metric is given: a function from named input arrays to named output arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Batch = dict[str, Array]
Runner = Callable[[Batch], Batch]


def only_output(outputs: Batch) -> Array:
    """The one output of a model of one output, whatever a compiler calls it."""
    (value,) = outputs.values()
    return value


def onnx_runner(path: Path, *, threads: int = 1) -> Runner:
    """The model in ONNX Runtime, for dense labels and for the zoo's own tests."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(batch: Batch) -> Batch:
        return {name: np.asarray(value) for name, value in zip(names, session.run(names, batch), strict=True)}

    return run
