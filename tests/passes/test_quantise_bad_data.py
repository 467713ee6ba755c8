"""What 8 bits do with values that fit no grid: refused, kept in float, or rounded as well as it goes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx.session import make_session, run
from prunec.diagnostics import PrunecError
from prunec.graph.shapes import constant
from prunec.passes.quantise import quantise
from prunec.passes.quantise.histogram import Histogram
from prunec.passes.quantise.ranges import Grid, choose_grid
from prunec.passes.quantise.strip import dequantised
from tests.passes.test_quantise import Data, batches, network

Batches = Iterator[dict[str, np.ndarray]]


def answers(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return next(iter(run(make_session(model), feeds).values()))


def convs(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "Conv"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("given", [False, True])
def test_what_is_no_number_is_refused_also_where_ranges_are_given(value: float, *, given: bool) -> None:
    def broken(seed: int) -> Batches:
        for feeds in batches(seed):
            feeds["x"][0, 0, 0, 0] = value
            yield feeds

    model = network()
    known = {str(v.name): Grid(0.02, 128, "given") for node in model.graph for v in node.outputs}
    known["x"] = Grid(0.02, 128, "given")
    with pytest.raises(PrunecError, match="PC480"):
        quantise(model, Data(broken), given=known if given else None)


def test_channels_and_layers_of_zeros_stay_zeros() -> None:
    model = network()
    first, second, *_ = convs(model)
    for node, rows in ((first, slice(0, 4)), (second, slice(None))):
        array = constant(node.inputs[1])
        assert array is not None and node.inputs[1] is not None
        array = array.copy()
        array[rows] = 0
        node.inputs[1].const_value = ir.Tensor(array)
    found = quantise(model, Data(batches))
    twin = dequantised(found.model)
    weights = [constant(node.inputs[1]) for node in convs(twin)]
    assert weights[0] is not None and weights[1] is not None
    assert (weights[0][:4] == 0).all() and (weights[1] == 0).all() and found.error < 0.05
    assert np.isfinite(answers(found.model, next(batches(5)))).all()


def test_inputs_that_never_change_are_rounded_all_the_same() -> None:
    def constants(seed: int) -> Batches:
        for _ in range(3):
            yield {"x": np.full((2, 3, 12, 12), 0.5, np.float32)}

    model = network()
    found = quantise(model, Data(constants))
    feeds = next(constants(0))
    wanted, got = answers(model, feeds), answers(found.model, feeds)
    assert np.linalg.norm(got - wanted) < 0.02 * np.linalg.norm(wanted)


@pytest.mark.parametrize("huge", [1e4, 1e30])
def test_one_broken_sample_does_not_take_the_range(huge: float) -> None:
    rng = np.random.default_rng(0)
    fit, held_out = Histogram(), Histogram()
    for seen in (fit, held_out):
        for _ in range(5):
            seen.add(rng.standard_normal(4000).astype(np.float32), rng)
    fit.add(np.array([huge], np.float32), rng)
    values = rng.standard_normal(2000)
    rounded = choose_grid(fit, held_out).rounded(values)
    assert np.square(rounded - values).mean() < 1e-3


def test_samples_of_very_different_size_are_reported_or_stay_in_float() -> None:
    """A static range that holds the large samples has no levels for the small ones."""

    def uneven(seed: int) -> Batches:
        for number, feeds in enumerate(batches(seed, 6)):
            yield {"x": feeds["x"] * np.float32(100.0 ** (number % 2))}

    model = network()
    found = quantise(model, Data(uneven), rounding="nearest")
    assert found.error <= found.plain and (found.error < 0.05 or found.left_float)
    large = {"x": next(batches(7))["x"] * 100}
    wanted = answers(model, large)
    assert np.linalg.norm(answers(found.model, large) - wanted) < 0.1 * np.linalg.norm(wanted)
