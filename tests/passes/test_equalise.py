"""Equalisation: which channels can be scaled, that the model computes the same, and that less is lost in 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx.session import make_session, run
from prunec.graph.shapes import constant
from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise.equalise import coupled, equalised, factors
from prunec.passes.quantise.observe import channel_peaks
from prunec.passes.quantise.prepare import Prepared, evenly, prepare
from prunec.statistics.output_errors import OutputErrors
from tests.graph.builder import Builder
from tests.passes.test_quantise import Data

SHAPE = [2, 3, 8, 8]


def depthwise(spread: float = 1.0, *, act: str = "Relu", seed: int = 0) -> ir.Model:
    """Expand, depthwise, project onto a residual stream, head; `spread`: how much larger every other hidden channel is.

    Its readers are as much smaller, so that all channels matter alike.
    """
    b = Builder(seed)

    def between(value: ir.Value) -> ir.Value:
        return (
            b.op(act, [value])
            if act != "Clip"
            else b.op("Clip", [value, b.const(np.float32(0)), b.const(np.float32(6))])
        )

    stem = b.relu(b.conv(b.input("x", SHAPE), 8, bias=True))
    hidden = between(b.conv(stem, 16, bias=True))
    inner = between(b.conv(hidden, 16, group=16, bias=True))
    stream = b.op("Add", [b.conv(inner, 8, bias=True), stem])
    flat = b.op("Flatten", [b.op("GlobalAveragePool", [b.relu(b.conv(stream, 8))])])
    b.output(b.op("Gemm", [flat, b.weight(10, 8), b.const(np.ones(10, np.float32))], transB=1))
    model = canonicalise(b.model())
    convs = [node for node in model.graph if node.op_type == "Conv"]
    uneven = np.where(np.arange(16) % 2, 1.0, spread).astype(np.float32)
    for node, rows in ((convs[1], uneven), (convs[2], 1 / uneven)):
        for index in (1, 2) if node is convs[1] else (1,):
            array = constant(node.inputs[index])
            assert array is not None and node.inputs[index] is not None
            scaled = array * rows.reshape(-1, *(1,) * (array.ndim - 1))
            node.inputs[index].const_value = ir.Tensor(scaled.astype(np.float32))
    return model


def pictures(seed: int, count: int = 4) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {"x": rng.standard_normal(SHAPE).astype(np.float32)}


DATA = Data(pictures)


def outputs(model: ir.Model) -> np.ndarray:
    return next(iter(run(make_session(model), next(pictures(9))).values()))


def scaled(model: ir.Model, alpha: float) -> ir.Model:
    names = [name for own in coupled(model) for name in own.values]
    return equalised(model, factors(model, channel_peaks(model, names, partial(pictures, 1), threads=1), alpha))


def test_streams_and_depthwise_chains_are_found_whole() -> None:
    found = coupled(depthwise())
    sizes = [(own.channels, len(own.producers), len(own.readers)) for own in found]
    # the stem's channels are in the residual sum, and those of its projection and both their readers
    assert sizes == [(8, 2, 2), (16, 1, 1), (16, 1, 1), (8, 1, 1)]


def test_what_clips_or_leaves_the_model_stays() -> None:
    found = coupled(depthwise(act="Clip"))
    assert [own.channels for own in found] == [8, 8]
    assert not any("Gemm" in name for own in found for name in own.producers)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_scaled_model_computes_the_same_bits(alpha: float) -> None:
    model = depthwise(64.0)
    other = scaled(model, alpha)
    assert np.array_equal(outputs(model), outputs(other))
    weights = [[constant(node.inputs[1]) for node in m.graph if node.op_type == "Conv"] for m in (model, other)]
    assert sum(not np.array_equal(a, b) for a, b in zip(*weights, strict=True)) >= 3


def test_channels_are_scaled_where_less_is_lost_and_only_there() -> None:
    model = depthwise(256.0)
    look = partial(prepare, calibration=DATA, exclude=(), seed=0, threads=1, progress=lambda what, done, of: None)
    plain, errors = look(model), OutputErrors(model, DATA, 64)

    def judged(own: Prepared) -> float:
        return errors.of(own.written(8))

    found, scales = evenly(plain, look, judged, DATA, 1, lambda what, done, of: None)
    assert scales and judged(found) < 0.25 * judged(plain)
    same, none = evenly(plain, look, lambda own: 1.0, DATA, 1, lambda what, done, of: None)
    assert same is plain and not none


def test_a_channel_that_is_always_zero_is_no_reason() -> None:
    model = depthwise(16.0)
    conv = [node for node in model.graph if node.op_type == "Conv"][1]
    for index in (1, 2):
        array = constant(conv.inputs[index])
        assert array is not None and conv.inputs[index] is not None
        array = array.copy()
        array[3] = 0
        conv.inputs[index].const_value = ir.Tensor(array)
    other = scaled(model, 0.5)
    assert np.isfinite(outputs(other)).all() and np.array_equal(outputs(model), outputs(other))
