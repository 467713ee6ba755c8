"""Scope "loss": next goes the rung that adds the least loss for what it saves.

Scores of the ladders are rises of a loss (`curves`). Every curve is replaced by its lower convex hull, so that a cheap
stretch behind an expensive one is reached when both together are worth it. What a rung saves depends on the widths of
the layers on its other side: it is worked out at the widths of the moment. It only shrinks as others go, so that a
ratio found earlier is a lower bound, and only the first in line is ever worked out anew (lazy greedy).

The last step may save far more than was still missing. `give_back` takes steps back for as long as the budget stays
met, the one that gives back most loss for what it costs first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from prunec.graph import Analysis
from prunec.plan.allocate import Arrange, Ladder, Path
from prunec.plan.hull import hull

Remaining = Callable[[np.ndarray], float]
"""bool [class ids] that are alive → what is left of what the budget counts."""


def least_loss(remaining: Remaining) -> Arrange:
    """The arrangement for a budget that counts `remaining`."""

    def arrange(analysis: Analysis, ladders: tuple[Ladder, ...]) -> Path:
        rises = [hull_rises(ladder) for ladder in ladders]
        alive = np.ones(analysis.channel_count, bool)
        left = remaining(alive)
        down = [0] * len(ladders)

        def ratio(number: int) -> float:
            ids = ladders[number].ids(down[number])
            alive[ids] = False
            saved = left - remaining(alive)
            alive[ids] = True
            return float(rises[number][down[number]]) / saved if saved > 0 else np.inf

        waiting = [(ratio(i), i) for i in range(len(ladders)) if len(rises[i])]
        heapq.heapify(waiting)
        steps: list[int] = []
        keys: list[float] = []
        while waiting:
            _, number = waiting[0]
            now = ratio(number)
            if len(waiting) > 1 and (now, number) > min(waiting[1:3]):
                heapq.heapreplace(waiting, (now, number))
                continue
            steps.append(number)
            keys.append(now)
            alive[ladders[number].ids(down[number])] = False
            left = remaining(alive)
            down[number] += 1
            if down[number] < len(rises[number]):
                heapq.heapreplace(waiting, (ratio(number), number))
            else:
                heapq.heappop(waiting)
        return Path(analysis, ladders, np.array(steps, np.int64), np.array(keys, np.float64))

    return arrange


def give_back(path: Path, length: int, remaining: Remaining, limit: float) -> Path:
    """The first `length` steps without those that the budget, at most `limit` remaining, does not need."""
    steps = path.steps[:length].tolist()
    while steps:
        alive = Path(path.analysis, path.ladders, np.array(steps), path.keys).alive(len(steps))
        left = remaining(alive)
        down = np.bincount(steps, minlength=len(path.ladders)).tolist()
        found: list[tuple[float, int]] = []
        for number in sorted(set(steps)):
            ladder, rung = path.ladders[number], down[number] - 1
            more = alive.copy()
            more[ladder.ids(rung)] = True
            with_it = remaining(more)
            if with_it <= limit + 1e-12:
                found.append((float(hull_rises(ladder)[rung]) / max(with_it - left, 1e-300), -number))
        if not found:
            break
        number = -max(found)[1]
        del steps[len(steps) - 1 - steps[::-1].index(number)]
    return _path_of(path, steps)


def _path_of(path: Path, steps: list[int]) -> Path:
    """`path` with these steps only. Each keeps the key of the step of the same ladder that it was."""
    keys = {number: path.keys[path.steps == number].tolist() for number in set(steps)}
    return Path(
        path.analysis, path.ladders, np.array(steps, np.int64), np.array([keys[number].pop(0) for number in steps])
    )


def hull_rises(ladder: Ladder) -> np.ndarray:
    """Rise of the convex loss with each step down, float64 [rungs − 1]."""
    total = np.concatenate([np.cumsum(ladder.scores[::-1])[::-1], [0.0]])
    kept = np.array(ladder.rungs)
    return np.diff(hull(kept[0] - kept, total[kept]))
