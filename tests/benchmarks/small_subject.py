"""A small model with data and a metric in the place of a zoo model: nothing is fetched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from prunec.api.opening import Opened, open_model
from prunec.backends.onnx.session import make_session, run
from prunec.frontend.calibration import Calibration, open_calibration

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[batch, 4, 6, 6] image) => (float[batch, 4] logits)
<float[8, 4, 3, 3] first_weight, float[8, 1, 3, 3] second_weight, float[8, 8, 3, 3] third_weight,
 float[4, 8] head_weight, float[4] head_bias>
{
    a = Conv <pads: ints = [1, 1, 1, 1]> (image, first_weight)
    b = Relu (a)
    c = Conv <group: int = 8, pads: ints = [1, 1, 1, 1]> (b, second_weight)
    d = Relu (c)
    e = Conv <pads: ints = [1, 1, 1, 1]> (d, third_weight)
    f = Relu (e)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    logits = Gemm <transB: int = 1> (h, head_weight, head_bias)
}
"""


def small_model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(0)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.value_info}
    for name, shape in shapes.items():
        array = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for number, node in enumerate(model.graph.node):
        node.name = f"node{number}"
    del model.graph.value_info[:]
    return model


def test_inputs(samples: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    random = np.random.default_rng(100 + seed)
    for _ in range(samples):
        yield {"image": random.standard_normal((1, 4, 6, 6)).astype(np.float32)}


@dataclass
class SmallSubject:
    """What `benchmarks.subject.Subject` has."""

    path: Path
    name: str = "small"
    seed: int = 0
    threads: int = 1
    metric: str = "agreement"
    dense: float = 1.0
    dense_values: dict[str, float] = field(default_factory=lambda: {"agreement": 1.0})

    def __post_init__(self) -> None:
        onnx.save(small_model(), self.path)
        self.opened: Opened = open_model(self.path)
        self.found: Any = SimpleNamespace(path=self.path, entry=SimpleNamespace(module=__name__))
        sys.modules.setdefault(__name__, sys.modules[type(self).__module__])
        self.calibration: Calibration = open_calibration(list(test_inputs(10, 50)), self.opened.canonical, samples=10)

    def values(self, model: ir.Model) -> dict[str, float]:
        dense, pruned = make_session(self.path), make_session(model)
        same = [
            next(iter(run(dense, feeds).values())).argmax() == next(iter(run(pruned, feeds).values())).argmax()
            for feeds in test_inputs(20, 1)
        ]
        return {"agreement": float(np.mean(same))}
