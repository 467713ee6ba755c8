"""Where an error is judged: the elementwise region behind a layer, if it ends in one place."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from prunec.passes.compensate.tail import find_tail
from tests.graph.builder import Builder
from tests.graph.checks import prepare


def swish(b: Builder, y: str) -> str:
    return str(b.op("Mul", [y, b.op("Sigmoid", [y])]))


def shifted_softmax(b: Builder, y: str) -> str:
    return str(b.op("Softmax", [b.op("Mul", [y, b.weight(1, 4, 1, 1)])], axis=1))


def pooled(b: Builder, y: str) -> str:
    return str(b.op("GlobalAveragePool", [y]))


def relu_then_pool(b: Builder, y: str) -> str:
    return pooled(b, b.relu(y))


def two_ends(b: Builder, y: str) -> str:
    return str(b.op("Concat", [b.relu(y), b.op("Tanh", [y])], axis=1))


def also_used_raw(b: Builder, y: str) -> str:
    return str(b.op("Concat", [b.relu(y), y], axis=1))


def added_to_another_activation(b: Builder, y: str) -> str:
    return str(b.op("Add", [y, b.conv("x", 4)]))


@pytest.mark.parametrize(
    ("behind", "operators"),
    [
        (swish, {"Sigmoid", "Mul"}),
        (shifted_softmax, {"Mul", "Softmax"}),
        (relu_then_pool, {"Relu"}),
        (pooled, None),
        (two_ends, None),
        (also_used_raw, None),
        (added_to_another_activation, None),
    ],
)
def test_the_tail_is_what_reads_nothing_else(behind: Callable[[Builder, str], str], operators: set[str] | None) -> None:
    b = Builder(seed=0)
    x = b.input("x", [1, 3, 6, 6])
    b.output(behind(b, b.conv(x, 4)))
    model: ir.Model = prepare(b.model())[0]
    value = next(node for node in model.graph if node.op_type == "Conv").outputs[0]
    tail = find_tail(value)
    assert (None if tail is None else {node.op_type for node in tail.nodes}) == operators
    if tail is not None:
        assert tail.input == value.name
        assert tail.output == tail.nodes[-1].outputs[0].name
