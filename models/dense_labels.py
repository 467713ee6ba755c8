"""What the dense zoo model answers on the test inputs: the reference of an agreement, computed once and cached."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

import prunec.models
from prunec.models.cache import cannot_write
from prunec.models.runner import Batch, only_output, onnx_runner


def dense_labels(name: str, inputs: Iterable[Batch], *, key: str) -> npt.NDArray[np.int64]:
    """[n] class of the largest output for each input of batch one; `key` tells one test set from another."""
    model = prunec.models.get(name)
    path = model.path.with_name(f"top1-{key}.npy")
    if path.is_file():
        return np.asarray(np.load(path), np.int64)
    run = onnx_runner(model.path)
    labels = np.array([int(only_output(run(batch))[0].argmax()) for batch in inputs], np.int64)
    partial = path.with_name(f".{path.name}-{os.getpid()}.npy")
    try:
        np.save(partial, labels)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return labels
