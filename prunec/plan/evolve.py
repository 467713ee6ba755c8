"""Swaps of levels that keep the time: what a sum of losses did not see (EvoPress, arXiv 2410.14649).

    offspring  one cell a rung or more up, others down until the predicted time is within the limit again
    screened   by an error of the whole model that is cheap to ask for; the best one is judged by the true error
    kept       where the true error falls; the next generation starts from there

A generation costs `OFFSPRING` cheap errors and one true one. Deterministic for a seed, as far as the errors are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Rungs = tuple[int, ...]
Error = Callable[[Rungs], float]
OFFSPRING = 12
TRIES = 20
"""Random swaps for each of the offspring, before there is taken to be no other one."""
FURTHEST = 3
"""Rungs that one swap moves a cell up at most."""


@dataclass(frozen=True)
class Evolved:
    """`rungs` with the true `error`, which was `before` at the start; `judged`: how many true errors were asked for."""

    rungs: Rungs
    before: float
    error: float
    judged: int


def evolve(
    start: Rungs,
    most: Sequence[int],
    time: Callable[[Rungs], float],
    limit: float,
    cheap: Error,
    true: Error,
    *,
    generations: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Evolved:
    """Improve on `start` (a rung for every cell, at most `most`) where `time` stays within `limit`."""
    rng = np.random.default_rng(seed)
    before = true(start)
    best, error, judged = start, before, 1
    seen = {start}
    for number in range(generations):
        progress(number, generations)
        children = list(_offspring(best, most, time, limit, seen, rng))
        if not children:
            break
        child = min(children, key=cheap)
        seen.add(child)
        found = true(child)
        judged += 1
        if found < error:
            best, error = child, found
    progress(generations, generations)
    return Evolved(best, before, error, judged)


def _offspring(
    parent: Rungs,
    most: Sequence[int],
    time: Callable[[Rungs], float],
    limit: float,
    seen: set[Rungs],
    rng: np.random.Generator,
) -> Iterator[Rungs]:
    """Up to `OFFSPRING` different ones, none of them judged before."""
    own = set(seen)
    for _ in range(OFFSPRING * TRIES):
        child = _swapped(parent, most, time, limit, rng)
        if child is not None and child not in own:
            own.add(child)
            yield child
            if len(own) - len(seen) == OFFSPRING:
                return


def _swapped(
    parent: Rungs, most: Sequence[int], time: Callable[[Rungs], float], limit: float, rng: np.random.Generator
) -> Rungs | None:
    """One cell up, others down in random order; None where that does not fit into the limit."""
    child = list(parent)
    ups = [cell for cell, rung in enumerate(child) if rung > 0]
    if not ups:
        return None
    up = int(rng.choice(ups))
    child[up] -= int(rng.integers(1, min(child[up], FURTHEST) + 1))
    for down in rng.permutation(len(child)).tolist():
        while time(tuple(child)) > limit and down != up and child[down] < most[down]:
            child[down] += 1
    return tuple(child) if time(tuple(child)) <= limit else None
