"""Symbolic axes: groups do not change when the batch, the image size or the length is left open."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.builder import Builder
from tests.graph.checks import assert_exact, free_sizes, prepare
from tests.graph.micros import C
from tests.graph.test_micro import MICROS, build

# Reshapes that write the batch (or the image size) as a number, so that with the axis open they may mean anything.
BAKED = {"reshape_gemm", "channel_shuffle", "lstm", "lstm_both", "gru", "gru_both", "rnn_both", "lstm_stacked"}
BAKED_SPACE = BAKED | {"flatten_gemm"}


def opened(model: ir.Model, axes: tuple[int, ...]) -> ir.Model:
    """`axes` of every input symbolic, all other shapes forgotten."""
    for value in model.graph.inputs:
        assert value.shape is not None
        value.shape = ir.Shape(["NTHW"[axis] if axis in axes else d for axis, d in enumerate(value.shape)])
    for node in model.graph:
        for output in node.outputs:
            output.shape = None
    return model


@pytest.mark.parametrize("name", [n for n in MICROS if n not in BAKED])
def test_batch(name: str) -> None:
    _, analysis = prepare(opened(build(name), (0,)))
    assert sorted(free_sizes(analysis)) == sorted(MICROS[name].free)


@pytest.mark.parametrize("name", [n for n in MICROS if n not in BAKED_SPACE])
def test_length_and_image_size(name: str) -> None:
    model = build(name)
    ranks = {len(value.shape) for value in model.graph.inputs if value.shape is not None}
    axes = {3: (0, 1), 4: (0, 2, 3)}.get(max(ranks), (0,))
    if len(ranks) > 1:
        axes = (0,)
    _, analysis = prepare(opened(model, axes))
    assert sorted(free_sizes(analysis)) == sorted(MICROS[name].free)


@pytest.mark.parametrize("name", sorted(BAKED))
def test_what_is_baked_is_pinned_or_coarser_never_finer(name: str) -> None:
    _, analysis = prepare(opened(build(name), (0,)))
    assert set(free_sizes(analysis)) <= set(MICROS[name].free) | {2}


def shuffle(b: Builder) -> None:
    x = b.reshape(b.relu(b.conv(b.input("x", [2, 3, 8, 8]), C)), [-1, 2, C // 2, 8, 8])
    x = b.reshape(b.op("Transpose", [x], perm=[0, 2, 1, 3, 4]), [-1, C, 8, 8])
    b.output(b.conv(x, 8))


def flat(b: Builder) -> None:
    x = b.relu(b.conv(b.input("x", [2, 3, 4, 4]), C))
    b.output(b.gemm(b.reshape(x, [-1, C * 16]), 12), b.gemm(b.reshape(x, [0, -1]), 5))


def recurrent(b: Builder) -> None:
    weights = [b.weight(2, 4 * C, 6), b.weight(2, 4 * C, C), b.weight(2, 8 * C)]
    y = b.op("LSTM", [b.input("x", [5, 2, 6]), *weights], outputs=2, hidden_size=C, direction="bidirectional")[0]
    b.output(b.linear(b.reshape(b.op("Transpose", [y], perm=[0, 2, 1, 3]), [0, 0, -1]), 4))


@pytest.mark.parametrize("graph", [shuffle, flat, recurrent])
def test_as_exporters_write_open_axes(graph: object) -> None:
    builder = Builder(seed=1)
    graph(builder)  # type: ignore[operator]
    canonical, analysis = prepare(opened(builder.model(), (0,)))
    assert free_sizes(analysis) == [C]
    assert_exact(canonical, analysis, seed=0)
    assert np.all([g.pinned is None or g.pinned.code == "PC102" for g in analysis.groups])
