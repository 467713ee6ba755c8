"""Micro graphs of mixtures of experts, as exporters write them: widths are channels, experts where the gate allows."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.graph.builder import Builder
from tests.graph.micros import C, Micro

D, F, EXPERTS = 12, C, 3


def ints(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


def expert(b: Builder, x: str, width: int = F) -> str:
    return b.linear(b.relu(b.linear(x, width)), D)


def dense_loop(b: Builder) -> None:
    """Every expert sees every token, times its column of the gate."""
    x = b.input("x", [5, D])
    gate = b.op("Softmax", [b.linear(x, EXPERTS)], axis=-1)
    columns = b.op("Split", [gate], outputs=EXPERTS, axis=1, num_outputs=EXPERTS)
    parts = [b.op("Mul", [expert(b, x, F + 2 * i), column]) for i, column in enumerate(columns)]
    b.output(b.linear(b.op("Sum", parts), 4))


def routed(b: Builder) -> None:
    """Top-2: tokens are gathered for their expert, and what it makes of them is scattered back."""
    x = b.linear(b.input("x", [5, D]), D)
    probabilities = b.op("Softmax", [b.linear(x, EXPERTS)], axis=-1)
    weights, chosen = b.op("TopK", [probabilities, ints(b, 2)], outputs=2, axis=-1)
    result = b.op("ConstantOfShape", [b.op("Shape", [x])])
    for number in range(EXPERTS):
        mine = b.op("Equal", [chosen, b.const(np.array(number, np.int64))])
        share = b.op("ReduceSum", [b.op("Mul", [weights, b.op("Cast", [mine], to=TensorProto.FLOAT)]), ints(b, 1)])
        hit = b.op("ReduceMax", [b.op("Cast", [mine], to=TensorProto.INT32), ints(b, 1)], keepdims=0)
        rows = b.op("NonZero", [hit])
        flat = b.op("Squeeze", [rows, ints(b, 0)])
        y = b.op("Mul", [expert(b, b.op("Gather", [x, flat], axis=0)), b.op("Gather", [share, flat], axis=0)])
        result = b.op("ScatterND", [result, b.op("Transpose", [rows], perm=[1, 0]), y], reduction="add")
    b.output(b.linear(result, 4))


def scattered(b: Builder) -> None:
    """The same dispatch with GatherElements and ScatterElements, whose indices are as wide as the features."""
    x = b.linear(b.input("x", [5, D]), D)
    order = b.op("TopK", [b.linear(x, 1), ints(b, 4)], outputs=2, axis=0)[1]
    index = b.op("Expand", [order, ints(b, 4, D)])
    y = expert(b, b.op("GatherElements", [x, index], axis=0))
    b.output(b.linear(b.op("ScatterElements", [x, index, y], axis=0, reduction="add"), 4))


def gathered(b: Builder) -> None:
    """GatherND: a token by its number."""
    x = b.linear(b.input("x", [5, D]), D)
    index = b.input("index", [3, 1], dtype=TensorProto.INT64)
    b.output(b.linear(b.op("GatherND", [x, index]), 4))


def stacked(b: Builder) -> None:
    """[E, D, F] weights and batched products under a softmax: the width is free, the experts are class C."""
    x = b.input("x", [5, D])
    gate = b.op("Unsqueeze", [b.op("Transpose", [b.op("Softmax", [b.linear(x, 4)])], perm=[1, 0]), ints(b, 2)])
    h = b.op("MatMul", [b.op("Unsqueeze", [x, ints(b, 0)]), b.weight(4, D, F)])
    h = b.relu(b.op("Add", [h, b.weight(4, 1, F)]))
    y = b.op("Mul", [b.op("MatMul", [h, b.weight(4, F, D)]), gate])
    b.output(b.linear(b.op("ReduceSum", [y, ints(b, 0)], keepdims=0), 6))


def stacked_sigmoid(b: Builder) -> None:
    """Sigmoid gates know nothing of each other: whole experts go, exactly."""
    x = b.input("x", [5, D])
    gate = b.op("Unsqueeze", [b.op("Transpose", [b.op("Sigmoid", [b.linear(x, 8)])], perm=[1, 0]), ints(b, 2)])
    h = b.op("MatMul", [b.op("Unsqueeze", [x, ints(b, 0)]), b.weight(8, D, F)])
    h = b.relu(b.op("Add", [h, b.weight(8, 1, F)]))
    y = b.op("Mul", [b.op("MatMul", [h, b.weight(8, F, D)]), gate])
    b.output(b.linear(b.op("ReduceSum", [y, ints(b, 0)], keepdims=0), 6))


def einsum_sigmoid(b: Builder) -> None:
    x = b.input("x", [5, D])
    h = b.relu(b.op("Einsum", [x, b.weight(8, D, F)], equation="td,edf->etf"))
    y = b.op("Einsum", [h, b.weight(8, F, D)], equation="etf,efd->etd")
    gate = b.op("Sigmoid", [b.linear(x, 8)])
    b.output(b.linear(b.op("Einsum", [y, gate], equation="etd,te->td"), 6))


def fused(b: Builder, third: bool = False) -> None:
    """ONNX Runtime's MoE: relu, or interleaved SwiGLU."""
    x = b.linear(b.input("x", [5, 7]), D)
    inputs = [x, b.linear(x, EXPERTS), b.weight(EXPERTS, (2 if third else 1) * F, D)]
    inputs += [b.weight(EXPERTS, (2 if third else 1) * F), b.weight(EXPERTS, D, F), b.weight(EXPERTS, D)]
    extra = {"activation_type": "swiglu", "swiglu_fusion": 1} if third else {"activation_type": "relu"}
    b.output(b.linear(b.contrib("MoE", inputs, k=2, **extra), 4))


def fused_gated(b: Builder) -> None:
    fused(b, third=True)


EXPERT_MICROS: dict[str, Micro] = {
    "experts_dense_loop": Micro(dense_loop, [16, 12, 18, 20], frozenset({"PC102", "PC105"})),
    "experts_routed": Micro(routed, [12, 16, 12, 16, 16], frozenset({"PC102", "PC105"})),
    "experts_scattered": Micro(scattered, [12, 16]),
    "experts_gathered": Micro(gathered, [12]),
    "experts_stacked": Micro(stacked, [16, 12], frozenset({"PC102", "PC105"})),
    "experts_stacked_sigmoid": Micro(stacked_sigmoid, [8, 16, 12]),
    "experts_einsum_sigmoid": Micro(einsum_sigmoid, [8, 16, 12]),
    "experts_fused": Micro(fused, [12, 16, 12], frozenset({"PC102", "PC105"})),
    "experts_fused_gated": Micro(fused_gated, [12, 16, 12], frozenset({"PC102", "PC105"})),
}
