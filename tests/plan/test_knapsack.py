"""Rungs by least loss within a time, beside trying all of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from prunec.plan.allocate import Ladder
from prunec.plan.knapsack import choose_rungs, improve, losses


class _Group:
    """All that a ladder's order is about."""

    channels = np.arange(64)


def ladder(rises: Sequence[float], rungs: Sequence[int]) -> Ladder:
    group: Any = _Group()
    return Ladder(group, np.arange(len(rises)), np.array(rises, np.float64), tuple(rungs))


def ladders(seed: int) -> list[Ladder]:
    """Five of 32 channels and five rungs; losses rise faster the more is gone."""
    rng = np.random.default_rng(seed)
    return [ladder(np.sort(rng.gamma(1, 1, 32) * rng.uniform(0.1, 3))[::-1], (32, 24, 16, 8)) for _ in range(5)]


def chain_time(found: Sequence[Ladder]) -> Any:
    """A layer between each two: its time is the product of their widths."""

    def time(rungs: Sequence[int]) -> float:
        widths = [one.rungs[rung] / one.rungs[0] for one, rung in zip(found, rungs, strict=True)]
        return 0.1 + 0.9 * sum(a * b for a, b in pairwise(widths)) / (len(widths) - 1)

    return time


def test_losses_are_the_sums_of_what_is_gone() -> None:
    assert losses(ladder([4, 3, 2, 1], (4, 2, 1))).tolist() == [0, 3, 6]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [0.3, 0.5, 0.8])
def test_nothing_better_exists(seed: int, limit: float) -> None:
    found = ladders(seed)
    time, curves = chain_time(found), [losses(one) for one in found]

    def loss(rungs: Sequence[int]) -> float:
        return sum(float(c[r]) for c, r in zip(curves, rungs, strict=True))

    best = min(loss(r) for r in product(range(4), repeat=5) if time(r) <= limit)
    rungs = choose_rungs(curves, time, limit)
    assert rungs is not None and time(rungs) <= limit
    assert loss(rungs) <= best * 1.01


def test_what_cannot_be_met_is_said() -> None:
    found = ladders(0)
    assert choose_rungs([losses(one) for one in found], chain_time(found), 0.1) is None


def test_a_limit_that_asks_for_nothing_cuts_nothing() -> None:
    found = ladders(0)
    assert choose_rungs([losses(one) for one in found], chain_time(found), 1.0) == [0] * 5


def test_long_ladders_are_thinned_and_walked_again() -> None:
    rng = np.random.default_rng(1)
    found = [ladder(np.sort(rng.gamma(1, 1, 64))[::-1], range(64, 1, -1)) for _ in range(3)]
    time = chain_time(found)
    rungs = choose_rungs([losses(one) for one in found], time, 0.5)
    assert rungs is not None and 0.48 < time(rungs) <= 0.5


def test_an_exchange_finds_what_single_steps_do_not() -> None:
    curves = [np.array([0.0, 5.0]), np.array([0.0, 1.0])]
    assert improve(curves, [1, 0], lambda rungs: 1.0 - 0.5 * max(rungs), 0.5) == [0, 1]
