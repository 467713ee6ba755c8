"""A micro model and a way to write a package of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from prunec.package.manifest import PLAN, VERIFICATION, SourceRecord
from prunec.package.writer import PackageWriter

MODEL_TEXT = """
<ir_version: 9, opset_import: ["" : 17]>
micro (float[batch, 4] "input/x:0") => (float[batch, 2] y)
<float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> { y = MatMul("input/x:0", w) }
"""
SOURCE = SourceRecord(name="micro.onnx", sha256="0" * 64)
PLAN_JSON = {"target": "onnx", "seed": 0, "groups": [{"id": "g0", "size": 4, "kept": 2}]}
QUALITY = {"quality": {"metric": "cosine", "dense": 1.0, "pruned": 0.9, "drop": 0.1, "data": "synthetic"}}


def micro_model() -> ir.Model:
    """y = x W with a symbolic batch and an input name that is no identifier."""
    text = MODEL_TEXT.replace('"input/x:0"', "x")
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    model.graph.inputs[0].name = "input/x:0"
    return model


def wide_model() -> ir.Model:
    """The same with the weight 64 times side by side, so that it is large enough for a data file."""
    model = micro_model()
    weight = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    model.graph.initializers["w"].const_value = ir.Tensor(np.tile(weight, (1, 64)), name="w")
    model.graph.outputs[0].shape = ir.Shape(["batch", 128])
    return model


def fill(writer: PackageWriter, model: ir.Model | None = None, *, inline_limit_bytes: int = 2**20) -> None:
    """Everything that a finished package holds."""
    model = model or micro_model()
    writer.write_model(model, inline_limit_bytes=inline_limit_bytes)
    writer.write_json(PLAN, PLAN_JSON)
    writer.write_manifest(source=SOURCE, target="onnx", model=model)
    writer.write_json(VERIFICATION, QUALITY)


def write_package(out: Path, *, force: bool = False) -> Path:
    """A finished package of the micro model at `out`."""
    with PackageWriter(out, force=force) as writer:
        fill(writer)
    return out
