"""What the dense zoo model answers on its test data: the reference of an agreement, computed once and cached."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import prunec.models
from prunec.models.cache import cannot_write
from prunec.models.runner import Runner, onnx_runner


def cached_dense_answer(name: str, key: str, answer: Callable[[Runner], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """`answer` applied to the zoo's model `name` in ONNX Runtime; `key` tells one question from another."""
    model = prunec.models.get(name)
    path = model.path.with_name(f"{key}.npy")
    if path.is_file():
        return np.asarray(np.load(path))
    result = answer(onnx_runner(model.path))
    partial = path.with_name(f".{key}-{os.getpid()}.npy")
    try:
        np.save(partial, result)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return result
