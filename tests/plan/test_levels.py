"""Allocations: the mean over all weights is what was asked for, and each takes from where it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.patterns import Layout, parse
from prunec.plan.levels import (
    STEPS,
    LayerWeights,
    curve_levels,
    energy_curve,
    erdos_renyi,
    erk_levels,
    grid,
    lost_energy,
    scaled,
    whole_levels,
)


def layer(outputs: int, channels: int, positions: int = 1, *, seed: int = 0, scale: float = 1.0) -> LayerWeights:
    rng = np.random.default_rng(seed)
    matrix = scale * rng.standard_normal((outputs, positions * channels))
    return LayerWeights([(matrix, Layout(positions, channels))])


LAYERS = {"thin": layer(8, 16), "wide": layer(64, 64, seed=1), "kernel": layer(16, 32, 9, seed=2)}
SIZES = {name: own.size for name, own in LAYERS.items()}
RAW = {name: erdos_renyi(own) for name, own in LAYERS.items()}


def mean(levels: dict[str, float]) -> float:
    return sum(levels[name] * SIZES[name] for name in SIZES) / sum(SIZES.values())


@settings(max_examples=30, deadline=None, derandomize=True)
@given(level=st.floats(0.05, 0.95))
def test_erk_keeps_thin_layers_denser(level: float) -> None:
    found = erk_levels(RAW, SIZES, level)
    assert mean(found) == pytest.approx(level, abs=1e-9)
    assert all(0 <= own < 1 for own in found.values())
    assert found["thin"] <= found["wide"] + 1e-12


def test_erk_is_the_formula_where_no_layer_is_full() -> None:
    found = erk_levels(RAW, SIZES, 0.95)
    kept = {name: 1 - own for name, own in found.items()}
    assert kept["thin"] / kept["wide"] == pytest.approx(((8 + 16) / (8 * 16)) / ((64 + 64) / (64 * 64)))
    assert kept["kernel"] / kept["wide"] == pytest.approx(((16 + 32 + 6) / (16 * 32 * 9)) / (128 / 64**2))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(level=st.floats(0.05, 0.9), pattern=st.sampled_from(["unstructured", "block:4x1", "kernel"]))
def test_curves_meet_the_mean(level: float, pattern: str) -> None:
    curves = {name: energy_curve(own, own.energies(with_inputs=False), parse(pattern)) for name, own in LAYERS.items()}
    assert mean(curve_levels(curves, SIZES, level)) == pytest.approx(level, abs=1e-9)


def test_curves_are_one_threshold_up_to_their_steps() -> None:
    """Unstructured, by magnitude: no kept weight is smaller than one that goes by more than a step of the curve."""
    layers = {"small": layer(32, 32, scale=0.5, seed=3), "large": layer(32, 32, seed=4)}
    pattern = parse("unstructured")
    curves = {name: energy_curve(own, own.energies(with_inputs=False), pattern) for name, own in layers.items()}
    levels = curve_levels(curves, {name: own.size for name, own in layers.items()}, 0.5)
    thresholds = [np.quantile(np.abs(own.parts[0][0]), levels[name]) for name, own in layers.items()]
    assert thresholds[0] == pytest.approx(thresholds[1], rel=0.1)
    assert levels["small"] > levels["large"] + 0.2


def test_what_inputs_never_carry_is_no_loss() -> None:
    own = layer(8, 16)
    quiet = np.where(np.arange(16) < 8, 1e-9, 1.0)
    heard = LayerWeights(own.parts, [quiet])
    pattern = parse("unstructured")
    half = lost_energy(heard, heard.energies(with_inputs=True), pattern, 0.5)
    assert half < 1e-6 < lost_energy(own, own.energies(with_inputs=False), pattern, 0.5)


def test_curves_go_through_what_was_measured() -> None:
    curve = grid() ** 2
    found = scaled(curve, (0.25, 0.5), (0.2, 0.6))
    assert found[STEPS // 4] == pytest.approx(0.2) and found[STEPS // 2] == pytest.approx(0.6)
    assert (np.diff(found) >= 0).all() and found[0] == 0


def test_layers_are_left_whole_where_they_lose_most() -> None:
    losses, sizes = {"a": 1.0, "b": 0.1, "c": 5.0}, {"a": 100, "b": 100, "c": 100}
    assert whole_levels(losses, sizes, 0.5, 0.25) == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert whole_levels(losses, sizes, 0.5, 0.5) == {"a": 0.5, "b": 0.5, "c": 0.5}
