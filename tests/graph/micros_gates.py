"""Whole experts behind a softmax or a top-k, as exporters write them: free with `analyse(experts=True)` only.

Each layer takes x [T, D] and makes [T, D] with E experts, of which a token is given K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from tests.graph.builder import Builder
from tests.graph.micros import C

D, F, E, K, T = 12, C, 6, 2, 5


def ints(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


def number(b: Builder, value: int) -> str:
    return b.const(np.array(value, np.int64))


def expert(b: Builder, x: str, width: int = F) -> str:
    return b.linear(b.relu(b.linear(x, width)), D)


def gate_of(b: Builder, x: str, e: int, k: int) -> tuple[str, str]:
    """Weights and numbers of the k experts of each token, [T, k]."""
    weights, chosen = b.op("TopK", [b.linear(x, e), ints(b, k)], outputs=2, axis=-1)
    return b.op("Softmax", [weights], axis=-1), chosen


def weighed(b: Builder, made: str, weights: str) -> str:
    """made [T, k, D], weights [T, k] → [T, D]."""
    products = b.op("Mul", [made, b.op("Unsqueeze", [weights, ints(b, 2)])])
    return str(b.op("ReduceSum", [products, ints(b, 1)], keepdims=0))


def stack(b: Builder, x: str, e: int) -> str:
    """[T, D] → [E, T, D]: what every expert makes of every token."""
    h = b.op("MatMul", [b.op("Unsqueeze", [x, ints(b, 0)]), b.weight(e, D, F)])
    h = b.relu(b.op("Add", [h, b.weight(e, 1, F)]))
    return str(b.op("MatMul", [h, b.weight(e, F, D)]))


def mix(b: Builder, made: str, gate: str) -> str:
    """made [E, T, D], gate [T, E] → [T, D]."""
    turned = b.op("Unsqueeze", [b.op("Transpose", [gate], perm=[1, 0]), ints(b, 2)])
    return str(b.op("ReduceSum", [b.op("Mul", [made, turned]), ints(b, 0)], keepdims=0))


def softmax_stacked(b: Builder, x: str, e: int, k: int) -> str:
    return mix(b, stack(b, x, e), b.op("Softmax", [b.linear(x, e)], axis=-1))


def softmax_einsum(b: Builder, x: str, e: int, k: int) -> str:
    h = b.relu(b.op("Einsum", [x, b.weight(e, D, F)], equation="td,edf->tef"))
    y = b.op("Einsum", [h, b.weight(e, F, D)], equation="tef,efd->ted")
    return weighed(b, y, b.op("Softmax", [b.linear(x, e)], axis=-1))


def softmax_split(b: Builder, x: str, e: int, k: int) -> str:
    """A loop in which every expert sees every token, times its column of the gate."""
    gate = b.op("Softmax", [b.linear(x, e)])
    columns = b.op("Split", [gate], outputs=e, axis=1, num_outputs=e)
    return str(b.op("Sum", [b.op("Mul", [expert(b, x, F + i), column]) for i, column in enumerate(columns)]))


def softmax_added_up(b: Builder, x: str, e: int, k: int) -> str:
    """The same, one product after the other, with a norm behind that must not see a sum of nothing."""
    gate = b.op("Softmax", [b.linear(x, e)])
    parts = [b.op("Mul", [expert(b, x), b.op("Gather", [gate, ints(b, i)], axis=1)]) for i in range(e)]
    total = parts[0]
    for part in parts[1:]:
        total = b.op("Add", [total, part])
    return str(b.op("LayerNormalization", [total, b.weight(D)]))


def one_hot(b: Builder, x: str, e: int, k: int) -> str:
    """Positions become a gate over all experts."""
    weights, chosen = gate_of(b, x, e, k)
    hot = b.op("OneHot", [chosen, number(b, e), b.const(np.array([0, 1], np.float32))], axis=-1)
    return mix(b, stack(b, x, e), weighed(b, hot, weights))


def compared(b: Builder, x: str, e: int, k: int) -> str:
    """Positions compared with all numbers of experts at once."""
    weights, chosen = gate_of(b, x, e, k)
    mine = b.op("Equal", [b.op("Unsqueeze", [chosen, ints(b, 2)]), ints(b, *reversed(range(e)))])
    gate = weighed(b, b.op("Cast", [mine], to=TensorProto.FLOAT), weights)
    turned = b.op("Gather", [gate, ints(b, *reversed(range(e)))], axis=1)
    return mix(b, stack(b, x, e), turned)


def scattered_gate(b: Builder, x: str, e: int, k: int) -> str:
    """The weights are written to their places in a row of zeros."""
    weights, chosen = gate_of(b, x, e, k)
    zeros = b.op("ConstantOfShape", [b.op("Shape", [b.linear(x, e)])])
    return mix(b, stack(b, x, e), b.op("ScatterElements", [zeros, chosen, weights], axis=1))


def gathered_outputs(b: Builder, x: str, e: int, k: int) -> str:
    """All experts are computed; the chosen ones are picked."""
    weights, chosen = gate_of(b, x, e, k)
    made = b.op("Transpose", [stack(b, x, e)], perm=[1, 0, 2])
    index = b.op("Expand", [b.op("Unsqueeze", [chosen, ints(b, 2)]), ints(b, T, k, D)])
    return weighed(b, b.op("GatherElements", [made, index], axis=1), weights)


def gathered_weights(b: Builder, x: str, e: int, k: int) -> str:
    """Each token multiplies the matrices of its own experts."""
    weights, chosen = gate_of(b, x, e, k)
    shapes = ((e, D, F), (e, F), (e, F, D))
    first, bias, second = (b.op("Gather", [b.weight(*shape), chosen], axis=0) for shape in shapes)
    h = b.op("MatMul", [b.op("Unsqueeze", [x, ints(b, 1, 2)]), first])
    h = b.relu(b.op("Add", [h, b.op("Unsqueeze", [bias, ints(b, 2)])]))
    return weighed(b, b.op("Squeeze", [b.op("MatMul", [h, second]), ints(b, 2)]), weights)


def chosen_of_all(b: Builder, x: str, e: int, k: int) -> str:
    """The softmax runs over all experts, the top-k over its probabilities; tokens go to their experts and back."""
    probabilities = b.op("Softmax", [b.linear(x, e)], axis=-1)
    weights, chosen = b.op("TopK", [probabilities, ints(b, k)], outputs=2, axis=-1)
    result = b.op("ConstantOfShape", [b.op("Shape", [x])])
    for i in range(e):
        mine = b.op("Equal", [chosen, number(b, i)])
        share = b.op("ReduceSum", [b.op("Mul", [weights, b.op("Cast", [mine], to=TensorProto.FLOAT)]), ints(b, 1)])
        hit = b.op("ReduceMax", [b.op("Cast", [mine], to=TensorProto.INT32), ints(b, 1)], keepdims=0)
        rows = b.op("NonZero", [hit])
        flat = b.op("Squeeze", [rows, ints(b, 0)])
        y = b.op("Mul", [expert(b, b.op("Gather", [x, flat], axis=0)), b.op("Gather", [share, flat], axis=0)])
        result = b.op("ScatterND", [result, b.op("Transpose", [rows], perm=[1, 0]), y], reduction="add")
    return str(result)


def one_hot_loop(b: Builder, x: str, e: int, k: int) -> str:
    """As Mixtral is exported: one-hot, a row of it, the tokens in it, and their products added at their places."""
    weights, chosen = gate_of(b, x, e, k)
    hot = b.op("OneHot", [chosen, number(b, e), ints(b, 0, 1)], axis=-1)
    rows = b.op("Transpose", [hot], perm=[2, 1, 0])
    result = b.op("ConstantOfShape", [b.op("Shape", [x])])
    for i in range(e):
        place = b.op("NonZero", [b.op("Gather", [rows, number(b, i)], axis=0)])
        which, token = (b.op("Gather", [place, number(b, axis)], axis=0) for axis in (0, 1))
        pairs = b.op("Concat", [b.op("Unsqueeze", [v, ints(b, 1)]) for v in (token, which)], axis=1)
        share = b.op("Unsqueeze", [b.op("GatherND", [weights, pairs]), ints(b, 1)])
        made = b.op("Mul", [expert(b, b.op("Gather", [x, token], axis=0), F + i), share])
        result = b.op("ScatterND", [result, b.op("Unsqueeze", [token, ints(b, 1)]), made], reduction="add")
    return str(result)


def where_loop(b: Builder, x: str, e: int, k: int) -> str:
    """Every expert sees every token; one of them answers."""
    _, chosen = b.op("TopK", [b.linear(x, e), ints(b, 1)], outputs=2, axis=-1)
    result = b.op("Mul", [x, b.const(np.float32(0.5))])
    for i in range(e):
        result = b.op("Where", [b.op("Equal", [chosen, number(b, i)]), expert(b, x), result])
    return str(result)


def positions_are_read(b: Builder, x: str, e: int, k: int) -> str:
    weights, chosen = gate_of(b, x, e, k)
    return b.linear(b.op("Add", [weights, b.op("Cast", [chosen], to=TensorProto.FLOAT)]), D)


def positions_are_an_output(b: Builder, x: str, e: int, k: int) -> str:
    weights, chosen = gate_of(b, x, e, k)
    b.output(b.op("Identity", [chosen]), dtype=TensorProto.INT64)
    return b.linear(weights, D)


def compared_with_a_stranger(b: Builder, x: str, e: int, k: int) -> str:
    weights, chosen = gate_of(b, x, e, k)
    mine = b.op("Equal", [chosen, b.input("favourite", [1], TensorProto.INT64)])
    return b.linear(b.op("Mul", [weights, b.op("Cast", [mine], to=TensorProto.FLOAT)]), D)


def without_a_gate(b: Builder, x: str, e: int, k: int) -> str:
    """sigmoid(0) is not 0: nothing is left out."""
    gate = b.op("Softmax", [b.linear(x, e)], axis=-1)
    columns = b.op("Split", [gate], outputs=e, axis=1, num_outputs=e)
    return str(b.op("Sum", [b.op("Mul", [expert(b, x), b.op("Sigmoid", [column])]) for column in columns]))


Layer = Callable[[Builder, str, int, int], str]


@dataclass(frozen=True)
class Gate:
    """`least`: the fewest experts that stay."""

    layer: Layer
    least: int


GATES: dict[str, Gate] = {
    "softmax_stacked": Gate(softmax_stacked, 1),
    "softmax_einsum": Gate(softmax_einsum, 1),
    "softmax_split": Gate(softmax_split, 1),
    "softmax_added_up": Gate(softmax_added_up, 1),
    "one_hot": Gate(one_hot, K),
    "compared": Gate(compared, K),
    "scattered_gate": Gate(scattered_gate, K),
    "gathered_outputs": Gate(gathered_outputs, K),
    "gathered_weights": Gate(gathered_weights, K),
    "chosen_of_all": Gate(chosen_of_all, K),
    "one_hot_loop": Gate(one_hot_loop, K),
    "where_loop": Gate(where_loop, 1),
}
PINNED: dict[str, tuple[Layer, str]] = {
    "positions_are_read": (positions_are_read, "PC105"),
    "positions_are_an_output": (positions_are_an_output, "PC102"),
    "compared_with_a_stranger": (compared_with_a_stranger, "PC105"),
    "without_a_gate": (without_a_gate, "PC109"),
}


def network(b: Builder, layers: list[tuple[Layer, int, int]]) -> None:
    """Layers of (kind, experts, k) one behind the other, each added to its input."""
    x = b.linear(b.input("x", [T, 7]), D)
    for layer, e, k in layers:
        x = b.op("Add", [x, layer(b, x, e, k)])
    b.output(b.linear(x, 4))
