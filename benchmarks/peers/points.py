"""What other tools reach in ONNX Runtime by cutting channels in one shot: points beside the curves of budgets.

Measured for this project with ONNX Runtime 1.31.1 on one thread of a shared processor with AVX-512 (medians), on the
same models and the same kind of data, but other samples than the curves have: onnxsim 0.8.1, Torch-Pruning 1.6.1. What
they did to crepe needed a constant in a reshape mended by hand. Zeros in patterns are not here: they gain nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class Point(NamedTuple):
    """`speedup` over the dense model in ONNX Runtime, below 1 where it is slower; `drop` of the model's metric."""

    tool: str
    speedup: float
    drop: float


POINTS: dict[str, tuple[Point, ...]] = {
    "efficientnet-lite0": (
        Point("Torch-Pruning, 30 %", 1 / 1.52, 1.0),
        Point("Torch-Pruning, 50 %", 1 / 0.46, 1.0),
        Point("onnxsim, 30 %", 1 / 1.72, 1.0),
        Point("onnxsim, 50 %", 1 / 0.45, 1.0),
        Point("onnxsim Wanda, 50 %", 1 / 0.84, 1.0),
    ),
    "ocr-rec": (
        Point("onnxsim, 30 %", 1 / 0.93, 0.84),
        Point("onnxsim, 50 %", 1 / 0.98, 0.84),
        Point("onnxsim Wanda, 30 %", 1 / 1.02, 0.76),
    ),
    "crepe-tiny": (Point("Torch-Pruning, 30 %", 1 / 3.62, 0.835), Point("Torch-Pruning, 50 %", 1 / 0.55, 0.865)),
    "crepe-full": (Point("Torch-Pruning, 30 %", 1 / 0.81, 0.92), Point("Torch-Pruning, 50 %", 1 / 0.30, 0.967)),
}
"""By model, for target onnx."""
