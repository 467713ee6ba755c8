"""Weights on grids of integers: the grid itself, learnt directions, the sweep, and the joint solve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from prunec.passes.solve import LayerProblem, solve
from prunec.passes.solve.adaround import FEWEST, ITERATIONS, adaround, affordable
from prunec.passes.solve.grid import WeightGrid, grid_for
from prunec.passes.solve.moves import settled
from prunec.passes.solve.quadratic import Quadratic, quadratic
from prunec.passes.solve.rounding import Rounded, jointly, learnt, nearest, swept
from prunec.patterns import parse
from tests.solve.problems import layer

COARSE = 7
"""Levels on either side of zero: so few that rounding costs as much as some of the zeros do."""


def rounded(found: Rounded | str) -> Rounded:
    assert isinstance(found, Rounded), found
    return found


def is_on(weight: np.ndarray, grid: WeightGrid) -> bool:
    whole = weight / grid.steps[:, None]
    return bool((np.abs(whole - np.rint(whole)) < 1e-9).all() and np.abs(whole).max() <= grid.levels + 1e-9)


def test_a_grid_has_zero_and_single_precision_steps() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 9))
    weight[1], weight[2, ::2] = 0, 0
    grid = grid_for(weight, 127)
    assert (grid.steps.astype(np.float32) == grid.steps).all() and (grid.steps > 0).all()
    found = grid.nearest(weight)
    assert (found[weight == 0] == 0).all() and not np.signbit(found[weight == 0]).any() and is_on(found, grid)
    assert np.abs(found - weight).max() < np.abs(weight).max() / 127


def test_columns_that_matter_more_are_rounded_better() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 32))
    weight[:, 0] *= 4  # what a grid of few levels would have to reach for
    importance = np.ones(32)
    importance[0] = 1e-6
    plain, weighed = grid_for(weight, COARSE), grid_for(weight, COARSE, importance=importance)
    rest = weight[:, 1:]
    errors = [np.square(grid.nearest(weight)[:, 1:] - rest).sum() for grid in (plain, weighed)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("levels", [COARSE, 127])
def test_a_sweep_pays_roundings_back_and_keeps_zeros(levels: int) -> None:
    problem = layer(16, 48, alpha=1.5, samples=1024)
    sparse = replace(problem, weight=solve(problem, parse("2:4"), 0.5, "fast").weight)
    plain, found = nearest(sparse, levels), rounded(swept(sparse, levels))
    assert is_on(found.weight, found.grid) and (found.weight[sparse.weight == 0] == 0).all()
    assert found.trial.error_held_out < plain.trial.error_held_out * (0.95 if levels == COARSE else 1.01)


def test_single_moves_never_make_it_worse() -> None:
    problem = layer(8, 32, alpha=1.5)
    q = quadratic(problem, 0.1)
    grid = grid_for(problem.weight, COARSE)
    mask = np.random.default_rng(0).random(problem.weight.shape) < 0.5
    start = np.where(mask, grid.nearest(problem.weight), 0.0) * q.scale

    def loss(weight: np.ndarray) -> float:
        return float(np.einsum("mn,nk,mk->", weight - q.target, q.matrix(), weight - q.target))

    found = settled(q, start, mask, grid)
    assert loss(found) < 0.9 * loss(start) and is_on(q.unscale(found), grid) and (found[~mask] == 0).all()


@pytest.mark.parametrize(("pattern", "level"), [("2:4", 0.5), ("block:4x4", 0.5), ("unstructured", 0.6)])
def test_zeros_and_integers_together(pattern: str, level: float) -> None:
    problem, wanted = layer(16, 48, alpha=1.5, samples=1024), parse(pattern)
    sequential = nearest(replace(problem, weight=solve(problem, wanted, level).weight), COARSE)
    found = rounded(jointly(problem, wanted, level, COARSE))
    assert wanted.check(found.weight, problem.layout, level).passed and is_on(found.weight, found.grid)
    assert not np.signbit(found.weight[found.weight == 0]).any()
    assert found.trial.error_held_out < sequential.trial.error_held_out
    again = rounded(jointly(problem, wanted, level, COARSE))
    assert np.array_equal(found.weight, again.weight)


def test_where_the_moments_are_no_matrix_it_says_so() -> None:
    rows: LayerProblem = layer(8, 32, samples=16, as_rows=True)
    assert "H as a matrix" in str(swept(rows, 127)) and "H as a matrix" in str(jointly(rows, parse("2:4"), 0.5, 127))


def test_steps_leave_room_for_biases() -> None:
    problem = layer(4, 16)
    found = rounded(swept(problem, 127, least=np.array([0.0, 1.0, 0.0, 0.0])))
    assert found.grid.steps[1] >= 1.0 and is_on(found.weight, found.grid)


def loss(q: Quadratic, weight: np.ndarray) -> float:
    away = weight * q.scale - q.target
    return float(np.einsum("mn,nk,mk->", away, q.matrix(), away))


@pytest.mark.parametrize("levels", [COARSE, 127])
@pytest.mark.parametrize("as_rows", [False, True])
def test_learnt_directions_beat_the_nearest_values_on_held_out_data(levels: int, as_rows: bool) -> None:
    """By so much that neither the nearest values of the same weights nor other steps explain it."""
    problem = layer(16, 48, alpha=1.5, samples=1024, as_rows=as_rows)
    plain, found = nearest(problem, levels), learnt(problem, levels)
    assert is_on(found.weight, found.grid) and found.trial.method == "adaround"
    assert found.trial.error_held_out < 0.7 * plain.trial.error_held_out


@pytest.mark.parametrize("pattern", ["2:4", "block:4x4"])
def test_learnt_directions_keep_zeros(pattern: str) -> None:
    problem, wanted = layer(16, 48, alpha=1.5, samples=1024), parse(pattern)
    sparse = replace(problem, weight=solve(problem, wanted, 0.5, "fast").weight)
    plain, found = nearest(sparse, COARSE), learnt(sparse, COARSE, rows=wanted.rows)
    zeros = found.weight[sparse.weight == 0]
    assert zeros.size and (zeros == 0).all() and not np.signbit(zeros).any()
    assert wanted.check(found.weight, problem.layout, 0.5).passed
    assert found.trial.error_held_out < 0.98 * plain.trial.error_held_out


@pytest.mark.parametrize("iterations", [None, 0])
def test_every_weight_goes_up_or_down_and_no_farther(iterations: int | None) -> None:
    problem = layer(8, 32, alpha=1.5)
    q, grid = quadratic(problem, 0.03), grid_for(problem.weight, COARSE)
    mask = np.ones(problem.weight.shape, bool)
    found = adaround(q, problem.weight, mask, grid, iterations)
    steps = problem.weight / grid.steps[:, None]
    inside = np.abs(steps) < grid.levels
    assert (np.abs(found / grid.steps[:, None] - steps)[inside] < 1).all() and is_on(found, grid)
    assert loss(q, found) < 0.7 * loss(q, grid.nearest(problem.weight))
    assert np.array_equal(found, adaround(q, problem.weight, mask, grid, iterations))


def test_learning_finds_more_than_single_changes_of_side() -> None:
    problem = layer(16, 64, alpha=1.5)
    q, mask = quadratic(problem, 0.03), np.ones(problem.weight.shape, bool)
    grid = grid_for(problem.weight, COARSE)
    greedy, learned = (loss(q, adaround(q, problem.weight, mask, grid, count)) for count in (0, None))
    assert learned < 0.97 * greedy


def test_iterations_are_fewer_for_large_layers() -> None:
    assert affordable((16, 64)) == ITERATIONS and affordable((2048, 8192)) == FEWEST
    assert FEWEST < affordable((512, 4096)) < ITERATIONS
