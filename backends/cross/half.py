"""Weights that are stored in half precision: the model whose weights are rounded to it, which is what is compiled.

Only tables that are multiplied by or looked up are rounded; scales, offsets and limits stay as they are. What comes out
exactly representable is stored in 16 bits (`source.Weights`) and becomes float32 again when a model is created, so that
the compiled model equals the rounded one in ONNX Runtime as closely as it would without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant

Storage = Literal["fp32", "fp16"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
_TABLES: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1), "Gather": (0,), "LSTM": (1, 2),
    "GRU": (1, 2), "RNN": (1, 2),
}  # fmt: skip
"""Inputs by operator."""
_LARGEST = float(np.finfo(np.float16).max)


def rounded(model: ir.Model) -> ir.Model:
    """A copy with weights rounded to the nearest half; those with a value beyond its range stay."""
    copy = model.clone()
    tables = {
        value
        for graph in copy.graphs()
        for node in graph
        for index in _TABLES.get(node.op_type, ())
        if index < len(node.inputs) and (value := node.inputs[index]) is not None and value.is_initializer()
    }
    for value in tables:
        array = constant(value)
        if array is None or array.dtype != np.float32 or not array.size or np.abs(array).max() > _LARGEST:
            continue
        halves = array.astype(np.float16).astype(np.float32)
        value.const_value = ir.Tensor(halves, dtype=ir.DataType.FLOAT, name=value.name)
    return copy


def stored_as(model: ir.Model, storage: str) -> ir.Model:
    """The model that a package with this storage computes."""
    return rounded(model) if storage == "fp16" else model


def as_storage(text: str) -> Storage:
    """One of `STORAGES`, which options were checked for."""
    return "fp16" if text == "fp16" else "fp32"
