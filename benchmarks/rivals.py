"""What other tools reached in one shot, beside rows of `benchmarks.recovery` and sweeps of `benchmarks.budgets`.

Figures are constants: they were measured once for this project, with ONNX Runtime 1.31.1 on two cores, on test data of
the same kind as here, but not the same items (`dense` is the dense model's metric there), so compare shares of the
dense metric, not points. `python -m benchmarks.peers` runs such tools anew (docs/peers.md).

Zeros of a rival at 50 % lie anywhere, which is easier than in blocks of 4×1. Channels go by a share of them: `macs` is
what that left. Of rivals with the same metric the one with the smallest error of its outputs is listed. ModelOpt's
"sparsegpt" on efficientnet-lite0 (agreement .946) is left out: it takes 1 % of the multiply-accumulates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Rival:
    """`value` of the metric, `error` ‖y − y_dense‖/‖y_dense‖ on test data, `macs` the share of those that are left."""

    who: str
    dense: float
    value: float
    error: float
    macs: float


BEST = {
    ("crepe-tiny", "2:4"): Rival("magnitude (numpy, ModelOpt)", 0.865, 0.798, 0.467, 0.73),
    ("crepe-tiny", "block:4x1@0.5"): Rival("magnitude (numpy), 50 % anywhere", 0.865, 0.837, 0.409, 0.50),
    ("crepe-tiny", "flops@0.5"): Rival("Torch-Pruning, 30 % of the channels", 0.865, 0.030, 1.109, 0.58),
    ("efficientnet-lite0", "2:4"): Rival("SparseGPT (onnxsim)", 1.0, 0.0, 1.073, 0.49),
    ("efficientnet-lite0", "block:4x1@0.5"): Rival("SparseGPT (onnxsim), 50 % anywhere", 1.0, 0.085, 1.055, 0.50),
    ("efficientnet-lite0", "flops@0.5"): Rival("Wanda (onnxsim), 30 % of the channels", 1.0, 0.0, 1.009, 0.53),
    ("minilm-l6", "2:4"): Rival("SparseGPT (onnxsim)", 0.215, 0.176, 0.561, 0.51),
    ("minilm-l6", "block:4x1@0.5"): Rival("Wanda (onnxsim), 50 % anywhere", 0.215, 0.187, 0.499, 0.51),
    ("ocr-rec", "2:4"): Rival("SparseGPT (onnxsim)", 0.840, 0.0, 0.758, 0.50),
    ("ocr-rec", "block:4x1@0.5"): Rival("Wanda (onnxsim), 50 % anywhere", 0.840, 0.0, 0.947, 0.50),
    ("ocr-rec", "flops@0.7"): Rival("Wanda (onnxsim), 30 % of the channels", 0.840, 0.080, 0.529, 1.00),
    ("ocr-rec", "flops@0.5"): Rival("Wanda (onnxsim), 50 % of the channels", 0.840, 0.0, 0.780, 0.99),
}
"""By model and case. Where there is none, none was measured or the tools left the model as it was (minilm-l6)."""


class Point(NamedTuple):
    """`speedup` over the dense model in ONNX Runtime, one thread, below 1 where it is slower; `drop` of the metric."""

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
"""Channels cut, by model, for target onnx. crepe needed a constant in a reshape mended by hand. Zeros in patterns gain
nothing in ONNX Runtime."""
