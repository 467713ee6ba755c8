"""Small models for the front-end tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

CONV = """<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv (x, w) }"""


def conv_model(weight: np.ndarray | None = None) -> onnx.ModelProto:
    """One Conv with a [4, 3, 3, 3] weight and a dynamic batch."""
    model = onnx.parser.parse_model(CONV)
    array = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32) if weight is None else weight
    model.graph.initializer.append(numpy_helper.from_array(array, "w"))
    return model


def text_model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text if text.startswith("<") else f'<ir_version: 8, opset_import: ["" : 17]> {text}')


def save(model: onnx.ModelProto, path: Path, change: Callable[[onnx.ModelProto], None] | None = None) -> Path:
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def save_external(path: Path, model: onnx.ModelProto | None = None) -> Path:
    """The model with its weight in `weights.bin` beside it."""
    model = conv_model() if model is None else model
    tensor = model.graph.initializer[0]
    (path.parent / "weights.bin").write_bytes(tensor.raw_data)
    set_external(tensor, location="weights.bin", offset=0, length=len(tensor.raw_data))
    return save(model, path)


def set_external(tensor: onnx.TensorProto, **entries: object) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
