"""Operands of which not even the number of axes is known: nothing is followed through them, and no rule fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

from prunec.graph import analyse
from prunec.passes.canonicalise import canonicalise
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import run


def reduced(b: Builder, x: str) -> str:
    return str(b.op("ReduceMean", [x, b.const(np.array([0]))], keepdims=0))


def shape(b: Builder, x: str) -> str:
    sizes = b.op("Cast", [b.op("Shape", [x])], to=TensorProto.FLOAT)
    return str(b.op("Gather", [sizes, b.const(np.array([2]))]))


def convolution(b: Builder, x: str) -> str:
    return str(b.op("Conv", [x, b.weight(5, 4, 1)]))


def recurrent(b: Builder, x: str) -> str:
    return str(b.op("LSTM", [x, b.weight(1, 16, 4), b.weight(1, 16, 4)], outputs=2, hidden_size=4)[0])


def recurrent_state(b: Builder, x: str) -> str:
    """The data is known, the first state is not."""
    data = b.const(np.ones((3, 4, 2), np.float32))
    weights = [b.weight(1, 48, 2), b.weight(1, 48, 16)]
    return str(b.op("GRU", [data, *weights, "", "", x], outputs=2, hidden_size=16)[0])


SHAPES = {
    reduced: [4, 4, 4],
    shape: [4, 4, 4],
    convolution: [4, 4, 4],
    recurrent: [4, 4, 4],
    recurrent_state: [1, 4, 16],
}


@pytest.mark.parametrize("build", SHAPES)
def test_is_pinned_and_the_rest_is_cut(build: Callable[[Builder, str], str]) -> None:
    b = Builder(seed=0)
    x = b.relu(b.conv(b.relu(b.conv(b.input("x", [1, 3, 4, 2]), 6)), 8))
    unknown = str(b.op("Reshape", [x, b.input("shape", [None], dtype=TensorProto.INT64)]))  # type: ignore[list-item]
    y = b.reshape(build(b, unknown), [-1, 1])
    b.shapes[y] = [None, 1]  # type: ignore[list-item]
    b.output(y)
    model = canonicalise(b.model())

    analysis = analyse(model)

    assert [(group.size, group.pinned and group.pinned.code) for group in analysis.groups] == [(6, None), (8, "PC104")]
    free = analysis.groups[0]
    cut = slice_channels(model, analysis, analysis.alive({free.id: np.arange(6) < 4}))
    feeds = {"x": np.ones((1, 3, 4, 2), np.float32), "shape": np.array(SHAPES[build])}
    assert [y.shape for y in run(cut, feeds)] == [y.shape for y in run(model, feeds)]
