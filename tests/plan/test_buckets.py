"""The knapsack where savings add up, beside trying all of it and beside HiGHS."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from prunec.plan.buckets import BUCKETS, least_loss
from prunec.plan.knapsack import choose_rungs

Cells = tuple[list[np.ndarray], list[np.ndarray]]


def cells(seed: int, count: int, options: int) -> Cells:
    """Losses and savings that rise from none, at random."""
    rng = np.random.default_rng(seed)
    losses = [np.concatenate([[0.0], np.cumsum(rng.gamma(1, 1, options - 1))]) for _ in range(count)]
    return losses, [np.concatenate([[0.0], np.cumsum(rng.gamma(2, 1, options - 1))]) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_nothing_better_exists(seed: int, share: float) -> None:
    losses, savings = cells(seed, 5, 4)
    needed = share * sum(own[-1] for own in savings)

    def best(saved: float) -> float:
        return min(
            sum(own[o] for own, o in zip(losses, options, strict=True))
            for options in product(range(4), repeat=5)
            if sum(own[o] for own, o in zip(savings, options, strict=True)) >= saved
        )

    found = least_loss(losses, savings, needed)
    assert found is not None and sum(own[o] for own, o in zip(savings, found, strict=True)) >= needed
    lost = sum(own[o] for own, o in zip(losses, found, strict=True))
    assert best(needed) - 1e-9 <= lost <= best(needed * (1 + 5 / BUCKETS)) + 1e-9


def test_as_many_layers_as_models_have_are_as_good_as_highs_finds() -> None:
    losses, savings = cells(3, 50, 22)
    needed = 0.4 * sum(own[-1] for own in savings)
    found = least_loss(losses, savings, needed)
    pick = np.zeros((50, 50 * 22))
    for cell in range(50):
        pick[cell, 22 * cell : 22 * (cell + 1)] = 1
    rows = [LinearConstraint(pick, 1, 1), LinearConstraint(np.concatenate(savings)[None, :], needed, np.inf)]
    exact = milp(np.concatenate(losses), integrality=np.ones(1100), bounds=Bounds(0, 1), constraints=rows)
    assert found is not None
    assert sum(own[o] for own, o in zip(losses, found, strict=True)) <= exact.fun * (1 + 100 / BUCKETS)


def test_too_much_cannot_be_saved() -> None:
    losses, savings = cells(0, 4, 5)
    most = sum(own[-1] for own in savings)
    assert least_loss(losses, savings, most * (1 - 1e-3)) == [4] * 4
    assert least_loss(losses, savings, 1.01 * most) is None


def test_what_is_saved_already_costs_nothing() -> None:
    assert least_loss(*cells(1, 3, 4), 0.0) == [0] * 3 == least_loss(*cells(1, 3, 4), -1.0)


def test_an_option_that_is_slower_is_no_saving() -> None:
    """It loses least of all, and nothing is saved by it."""
    losses, savings = (
        [np.array([0.2, 0.1, 3.0]), np.array([0.0, 1.0])],
        [np.array([0.0, -1.0, 2.0]), np.array([0.0, 2.0])],
    )
    assert least_loss(losses, savings, 2.0) == [0, 1]


def test_times_that_add_up_take_every_rung() -> None:
    losses, savings = cells(5, 12, 30)
    whole = sum(own[-1] for own in savings) + 1

    def time(rungs: object) -> float:
        assert isinstance(rungs, list | tuple)
        return float(whole - sum(own[r] for own, r in zip(savings, rungs, strict=True)))

    limit = 0.6 * whole
    rungs, exact = choose_rungs(losses, time, limit), least_loss(losses, savings, whole - limit)
    assert rungs is not None and exact is not None and 0.999 * limit < time(rungs) <= limit
    assert sum(own[r] for own, r in zip(losses, rungs, strict=True)) <= sum(
        own[r] for own, r in zip(losses, exact, strict=True)
    ) * (1 + 1e-9)
