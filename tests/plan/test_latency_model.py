"""Times of layers, learnt from whole models; times are made up here, with layers of very different rates."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from prunec.plan.cost_model import CostModel
from prunec.plan.latency_model import PADDING, LatencyModel
from tests.criteria.small import prepare
from tests.graph.builder import Builder


def network() -> ir.Model:
    """Four convolutions of one kind."""
    b = Builder(0)
    x = b.input("x", [1, 3, 8, 8])
    for width in (32, 48, 64):
        x = b.relu(b.conv(x, width, 3))
    b.output(b.conv(x, 8, 3))
    return b.model()


MODEL, ANALYSIS = prepare(network())
COSTS = CostModel(MODEL, ANALYSIS)
RATES = np.array([5.0, 1.0, 3.0, 0.5])


def cut(rng: np.random.Generator) -> np.ndarray:
    """The classes that are alive with a random multiple of 8 in every group."""
    alive = np.ones(ANALYSIS.channel_count, bool)
    for group in ANALYSIS.groups:
        if group.pinned is None:
            alive[group.channels[8 * int(rng.integers(1, group.size // 8 + 1)) :]] = False
    return alive


def true_time(alive: np.ndarray) -> float:
    """A fixed part, and each layer at its own rate per padded product."""
    everything = np.ones(ANALYSIS.channel_count, bool)
    return 0.1 + 0.9 * _work(alive) / _work(everything)


def _work(alive: np.ndarray) -> float:
    macs = COSTS.layer_macs(alive, PADDING)
    return float(macs[macs > 0] @ RATES)


@pytest.fixture(scope="module")
def fitted() -> LatencyModel:
    rng = np.random.default_rng(0)
    seen = [cut(rng) for _ in range(24)]
    noise = np.random.default_rng(1).normal(1, 0.01, len(seen))
    return LatencyModel(MODEL, COSTS, seen, [true_time(a) * n for a, n in zip(seen, noise, strict=True)], [1.0] * 24)


def test_it_predicts_models_that_it_has_not_seen(fitted: LatencyModel) -> None:
    rng = np.random.default_rng(2)
    for alive in (cut(rng) for _ in range(50)):
        assert fitted.share(alive) == pytest.approx(true_time(alive), rel=0.08)


def test_what_it_says_of_left_out_models_is_what_it_does(fitted: LatencyModel) -> None:
    assert fitted.fit.error < 0.03 and fitted.fit.rank_correlation > 0.97


def test_a_narrower_model_is_never_predicted_to_be_slower(fitted: LatencyModel) -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        wide, other = cut(rng), cut(rng)
        assert fitted.share(wide & other) <= fitted.share(wide) + 1e-12


def test_padded_widths_count_what_the_vector_counts() -> None:
    group = next(g for g in ANALYSIS.groups if g.pinned is None and g.size == 32)
    at = {}
    for kept in (24, 32):
        alive = np.ones(ANALYSIS.channel_count, bool)
        alive[group.channels[kept:]] = False
        at[kept] = [COSTS.layer_macs(alive, multiple).sum() for multiple in (1, PADDING)]
    assert at[24][0] < at[32][0] and at[24][1] == at[32][1]
    assert COSTS.layer_macs(alive).sum() == COSTS.evaluate(alive).macs
