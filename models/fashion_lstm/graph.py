"""fashion-lstm as an ONNX graph: one step per image row, two bidirectional layers, their mean over time, Gemm.

    image [b, 1, 28, 28] → [28, b, 28] → y₁ [28, 2, b, H] → [28, b, 2H] → y₂ [28, 2, b, H] → [b, 2H] → logits [b, 10]

torch stacks the gates of an LSTM as (i, f, c, o) and of a GRU as (r, z, h); ONNX as (i, o, f, c) and (z, r, h).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from prunec.models.onnx_builder import GraphBuilder, save_model

__all__ = ["HIDDEN", "LAYERS", "SIDE", "Cell", "build_model", "from_torch", "save_model"]

Cell = Literal["lstm", "gru"]
Weights = Mapping[str, npt.NDArray[Any]]

SIDE, HIDDEN, LAYERS = 28, 96, 2
GATE_ORDER: Mapping[Cell, tuple[int, ...]] = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""The place in torch's weights of each gate that ONNX wants."""


def from_torch(weights: Weights, cell: Cell) -> dict[str, npt.NDArray[Any]]:
    """`rnn.weight_ih_l0`, `rnn.weight_ih_l0_reverse`, … as W [2, G·H, I], R [2, G·H, H], B [2, 2·G·H] per layer."""
    found = {name: array for name, array in weights.items() if not name.startswith("rnn.")}
    for layer in range(LAYERS):
        ends = [f"l{layer}", f"l{layer}_reverse"]
        for name, source in (("W", "weight_ih"), ("R", "weight_hh")):
            found[f"rnn.{layer}.{name}"] = np.stack([_reordered(weights[f"rnn.{source}_{end}"], cell) for end in ends])
        both = [[_reordered(weights[f"rnn.{bias}_{end}"], cell) for bias in ("bias_ih", "bias_hh")] for end in ends]
        found[f"rnn.{layer}.B"] = np.stack([np.concatenate(pair) for pair in both])
    return found


def build_model(weights: Weights, cell: Cell) -> ModelProto:
    """`weights` as `from_torch` returns them, float32."""
    g = GraphBuilder(f"fashion_{cell}", weights)
    x = g.input("image", np.float32, ["batch", 1, SIDE, SIDE])
    x = g.node("Squeeze", [x, g.constant("channel_axis", [1])], "rows")
    x = g.node("Transpose", [x], "time_first", perm=[1, 0, 2])
    for layer in range(LAYERS):
        if layer:
            x = _joined(g, x, f"rnn.{layer - 1}.join", perm=[0, 2, 1, 3], shape=[0, 0, -1])
        x = _recurrent(g, x, f"rnn.{layer}", cell)
    x = g.node("ReduceMean", [x], "pool", axes=[0], keepdims=0)
    x = _joined(g, x, "features", perm=[1, 0, 2], shape=[0, -1])
    logits = g.node("Gemm", [x, g.weight("head.weight"), g.weight("head.bias")], "head", output="logits", transB=1)
    g.output(logits, np.float32, ["batch", 10])
    return g.model()


def _recurrent(g: GraphBuilder, x: str, name: str, cell: Cell) -> str:
    weights = [g.weight(f"{name}.{part}") for part in "WRB"]
    extra: dict[str, Any] = {"linear_before_reset": 1} if cell == "gru" else {}
    hidden = int(g.weights[f"{name}.R"].shape[2])
    return g.node(cell.upper(), [x, *weights], name, direction="bidirectional", hidden_size=hidden, **extra)


def _joined(g: GraphBuilder, x: str, name: str, perm: list[int], shape: list[int]) -> str:
    """Both directions side by side on the last axis."""
    turned = g.node("Transpose", [x], f"{name}.turn", perm=perm)
    return g.node("Reshape", [turned, g.constant(f"{name}.shape", shape)], name)


def _reordered(array: npt.NDArray[Any], cell: Cell) -> npt.NDArray[Any]:
    order = GATE_ORDER[cell]
    gates = array.reshape(len(order), -1, *array.shape[1:])
    return np.ascontiguousarray(gates[list(order)].reshape(array.shape))
