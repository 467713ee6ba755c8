"""Swaps that keep the time, against losses that are known; among them ones that do not add up."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.plan import evolve as module
from prunec.plan.evolve import Rungs, evolve

MOST = (4, 4, 4, 4)


def time(rungs: Rungs) -> float:
    return 1 - sum(rungs) / 20


def together(rungs: Rungs) -> float:
    """The first two cells lose little unless both are cut: their sum of losses would not say so."""
    return sum(rung**2 for rung in rungs[2:]) + 5 * rungs[0] * rungs[1] + 0.1 * (rungs[0] + rungs[1])


def test_what_does_not_add_up_is_found() -> None:
    start = (2, 2, 2, 2)
    found = evolve(start, MOST, time, time(start), together, together, generations=12, seed=0)
    assert time(found.rungs) <= time(start) and min(found.rungs[:2]) == 0
    assert found.error == together(found.rungs) < found.before / 3 and found.before == together(start)
    assert found.judged == 13 and all(0 <= rung <= 4 for rung in found.rungs)
    again = evolve(start, MOST, time, time(start), together, together, generations=12, seed=0)
    assert again == found


def test_the_true_error_decides() -> None:
    """Whatever the cheap one says: here that nothing is worse than where it starts."""
    start = (2, 2, 2, 2)
    found = evolve(start, MOST, time, time(start), lambda rungs: -together(rungs), together, generations=5, seed=1)
    assert found.error <= found.before and found.judged == 6
    worse = evolve(start, MOST, time, time(start), together, lambda rungs: float(rungs != start), generations=3, seed=0)
    assert worse.rungs == start and worse.error == worse.before == 0


@pytest.mark.parametrize("start", [(0, 0, 0, 0), MOST])
def test_nothing_to_swap(start: Rungs) -> None:
    """A dense model has nothing to give back, and one at its end nothing to take instead."""
    found = evolve(start, MOST, time, time(start), together, together, generations=3, seed=0)
    assert found.rungs == start and found.judged == 1


def test_no_offspring_is_asked_about_twice() -> None:
    asked: list[Rungs] = []

    def true(rungs: Rungs) -> float:
        asked.append(rungs)
        return together(rungs)

    evolve((2, 2, 2, 2), MOST, time, 0.6, together, true, generations=8, seed=0)
    assert len(asked) == len(set(asked)) == 9
    rng = np.random.default_rng(0)
    children = list(module._offspring((2, 2, 2, 2), MOST, time, 0.6, {(3, 1, 2, 2)}, rng))
    assert len(children) == len(set(children)) == module.OFFSPRING and (3, 1, 2, 2) not in children
