"""fashion-net as an ONNX graph: batch norms unfolded, parameter names kept, dynamic batch axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from prunec.models.onnx_builder import GraphBuilder, save_model

__all__ = ["BLOCKS", "STEM", "build_model", "save_model"]

STEM = 16
BLOCKS = ((16, 1), (48, 2), (48, 1), (96, 2), (96, 1))  # (channels, stride)


def build_model(weights: Mapping[str, npt.NDArray[Any]]) -> ModelProto:
    """`weights` are the torch names (`stem_conv.weight`, `blocks.0.bn1.running_mean`, …), float32."""
    g = GraphBuilder("fashion_net", weights)
    x = g.input("image", np.float32, ["batch", 1, 28, 28])
    x = g.relu(_conv_norm(g, x, "stem_conv", "stem_bn", stride=1), "stem_relu")
    for number, (_, stride) in enumerate(BLOCKS):
        x = _block(g, x, f"blocks.{number}", stride)
    x = g.node("GlobalAveragePool", [x], "pool")
    x = g.node("Flatten", [x], "flatten", axis=1)
    logits = g.node("Gemm", [x, g.weight("head.weight"), g.weight("head.bias")], "head", output="logits", transB=1)
    g.output(logits, np.float32, ["batch", 10])
    return g.model()


def _block(g: GraphBuilder, x: str, name: str, stride: int) -> str:
    y = g.relu(_conv_norm(g, x, f"{name}.conv1", f"{name}.bn1", stride), f"{name}.relu1")
    y = _conv_norm(g, y, f"{name}.conv2", f"{name}.bn2", stride=1)
    if f"{name}.skip_conv.weight" in g.weights:
        x = _conv_norm(g, x, f"{name}.skip_conv", f"{name}.skip_bn", stride)
    return g.relu(g.node("Add", [y, x], f"{name}.add"), f"{name}.relu2")


def _conv_norm(g: GraphBuilder, x: str, conv: str, norm: str, stride: int) -> str:
    kernel = g.weights[f"{conv}.weight"].shape[2]
    return g.batch_norm(g.conv(x, conv, strides=[stride] * 2, pads=[kernel // 2] * 4), norm, epsilon=1e-5)
