"""Weights of one layer on a grid of integers, alone or together with their pattern.

    nearest    every weight by itself
    adaround   the mask stays; every weight goes up or down from where it should be, as is learnt (`adaround.py`)
    sweep      the mask stays; one sweep over the columns pays every rounding back (GPTQ)
    joint      the mask is found too, the projection being "pattern and grid": in that sweep, or in ADMM's iterations

A sweep can only correct what is to its right. So single weights go on moving afterwards (`moves.py`). Damping is chosen
on held-out data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunec.passes.solve import sparsegpt
from prunec.passes.solve.adaround import adaround
from prunec.passes.solve.admm import admm
from prunec.passes.solve.grid import WeightGrid, grid_for
from prunec.passes.solve.hessian import Double, MatrixHessian
from prunec.passes.solve.moves import settled
from prunec.passes.solve.portfolio import chosen_damping
from prunec.passes.solve.problem import LayerProblem
from prunec.passes.solve.quadratic import Quadratic, quadratic
from prunec.passes.solve.refit import refit
from prunec.passes.solve.solution import Trial
from prunec.patterns import Pattern, masked
from prunec.patterns.base import Mask

DAMPINGS = (0.003, 0.03, 0.3, 3.0)
LEARNT_DAMPINGS = (0.03, 0.3)
"""Fewer: each costs hundreds of products with A."""
ITERATIONS = 60
"""Of ADMM."""


@dataclass(frozen=True)
class Rounded:
    """Plain weights [m, n] on `grid` (+0.0 outside the mask), and how they came about."""

    weight: Double
    grid: WeightGrid
    trial: Trial
    notes: tuple[str, ...] = ()


def nearest(problem: LayerProblem, levels: int, least: Double | float = 0.0) -> Rounded:
    """Every weight at the value of the grid that is next to it; the grid by squared rounding error alone.

    `least`: the smallest step of each output.
    """
    grid = grid_for(problem.weight, levels, least=least)
    weight = grid.nearest(problem.weight)
    return Rounded(weight, grid, _trial("nearest", 0.0, problem, weight))


def swept(
    problem: LayerProblem,
    levels: int,
    least: Double | float = 0.0,
    rows: int = 1,
    dampings: Sequence[float] = DAMPINGS,
) -> Rounded | str:
    """With the zeros that the weights have, which `rows` consecutive outputs share; or why it cannot be done."""
    if not isinstance(problem.fit.hessian, MatrixHessian):
        return "a sweep needs H as a matrix, and the layer has too many inputs for one"
    mask = problem.weight != 0
    found = (_on_mask("sweep", quadratic(problem, damping), mask, rows, levels, least) for damping in dampings)
    return min(found, key=lambda own: own.trial.error_held_out)


def learnt(
    problem: LayerProblem, levels: int, least: Double | float = 0.0, rows: int = 1, iterations: int | None = None
) -> Rounded:
    """Up or down from the exact weights, with the zeros that there are, which `rows` consecutive outputs share.

    `iterations` as in `adaround`.
    """
    mask = problem.weight != 0

    def rounded(damping: float) -> Rounded:
        q = quadratic(problem, damping)
        exact = q.unscale(q.target if mask.all() else refit(q, mask, rows))
        grid = _grid(q, exact, levels, least)
        plain = adaround(q, exact, mask, grid, iterations)
        return Rounded(plain, grid, _trial("adaround", damping, problem, plain))

    return min(map(rounded, LEARNT_DAMPINGS), key=lambda own: own.trial.error_held_out)


def jointly(
    problem: LayerProblem,
    pattern: Pattern,
    level: float,
    levels: int,
    least: Double | float = 0.0,
) -> Rounded | str:
    """From dense weights to a pattern on the grid; or why it cannot be done."""
    refusal = sparsegpt.refusal(quadratic(problem, DAMPINGS[0], to_dense=False), pattern)
    if refusal is not None:
        return refusal
    q = quadratic(problem, chosen_damping(problem, pattern, level))
    kept, mask, _ = sparsegpt.sparsegpt(q, pattern, level)
    grid = _grid(q, q.unscale(kept), levels, least)  # of what is left: what goes needs no room on it
    weight, mask, notes = sparsegpt.sparsegpt(q, pattern, level, grid)
    found = [_settled("joint sweep", q, weight, mask, grid, notes)]
    other = admm(q, pattern, level, iterations=ITERATIONS, grid=grid)
    found.append(_on_mask("joint ADMM", q, other.mask, pattern.rows, levels, least))
    return min(found, key=lambda own: own.trial.error_held_out)


def _on_mask(method: str, q: Quadratic, mask: Mask, rows: int, levels: int, least: Double | float) -> Rounded:
    """The exact weights of the mask, rounded by the sweep from there on."""
    exact = q if mask.all() else replace(q, target=refit(q, mask, rows))
    grid = _grid(q, q.unscale(exact.target), levels, least)
    weight, notes = sparsegpt.rounded_sweep(exact, mask, grid)
    return _settled(method, q, weight, mask, grid, notes)


def _grid(q: Quadratic, weight: Double, levels: int, least: Double | float) -> WeightGrid:
    return grid_for(weight, levels, importance=q.diagonal * np.square(q.scale), least=least)


def _settled(
    method: str, q: Quadratic, weight: Double, mask: Mask, grid: WeightGrid, notes: tuple[str, ...]
) -> Rounded:
    plain = masked(grid.nearest(q.unscale(settled(q, weight, mask, grid))), mask)
    return Rounded(plain, grid, _trial(method, q.damping, q.problem, plain), notes)


def _trial(name: str, damping: float, problem: LayerProblem, weight: Double) -> Trial:
    return Trial(name, damping, problem.fit.error(weight), problem.held_out.error(weight))
