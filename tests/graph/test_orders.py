"""Reordered channels: which may change places, and that the network computes what it did."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph import Analysis
from prunec.graph.orders import analyse_orders, cells
from prunec.passes.permute.channels import permute_channels
from prunec.verify.unrounded import without_rounding
from tests.graph.builder import Builder
from tests.graph.checks import prepare, random_feeds, relative_error, run, run_float64
from tests.graph.micros import C
from tests.graph.micros_residual import RESIDUALS
from tests.graph.test_micro import MICROS, NO_REFERENCE, build


def shuffled(analysis: Analysis, seed: int) -> np.ndarray:
    """Every cell in a random order."""
    random = np.random.default_rng(seed)
    source = np.arange(analysis.channel_count)
    for cell in cells(analysis):
        source[cell.classes] = random.permutation(cell.classes)
    return source


def assert_same(model: ir.Model, *, in_float64: bool, seed: int = 0) -> ir.Model:
    analysis = analyse_orders(model)
    source = shuffled(analysis, seed)
    permuted = permute_channels(model, analysis, source)
    feeds = random_feeds(model, np.random.default_rng(seed))
    if in_float64:
        assert relative_error(run_float64(model, feeds), run_float64(permuted, feeds)) <= 1e-12
    else:
        before, after = (run(without_rounding(m), feeds, optimise=False) for m in (model, permuted))
        assert relative_error(before, after) <= 1e-5
    return permuted


def sizes(model: ir.Model) -> list[int]:
    return [len(cell.classes) for cell in cells(analyse_orders(model))]


@pytest.mark.parametrize("name", [n for n in MICROS if MICROS[n].free])
def test_every_micro_graph_computes_the_same(name: str) -> None:
    canonical, _ = prepare(build(name))
    assert_same(canonical, in_float64=name not in NO_REFERENCE, seed=sorted(MICROS).index(name))


@pytest.mark.parametrize("name", RESIDUALS)
def test_streams_under_norms_may_be_reordered(name: str) -> None:
    builder = Builder(seed=sorted(RESIDUALS).index(name), opset=RESIDUALS[name].opset)
    RESIDUALS[name].build(builder)
    assert_same(prepare(builder.model())[0], in_float64=True)
