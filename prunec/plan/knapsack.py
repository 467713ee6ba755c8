"""One level for every cell: least loss within a time, as a knapsack where times add up, or a program for HiGHS.

    minimise Σ_c Σ_l loss[c, l] x[c, l]     subject to Σ_l x[c, l] = 1, Σ time ≤ limit, x ∈ {0, 1}

The time of a layer is not a sum over cells: it is a product of the widths on both its sides. So pairs of cells that
share a layer have times of their own, with y[c, l, d, m] = x[c, l] · x[d, m] written as Σ_m y = x[c, l] and
Σ_l y = x[d, m]: exact for whole x, and tight. What more than two cells do together is left to the caller, who works out
the true time of the answer. Ladders of many rungs are thinned to `LEVELS` here; `improve` then walks single rungs.
Where no two cells share a layer, times add up: then it is a plain knapsack (`plan.buckets`), with nearly all rungs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from prunec.plan.allocate import Ladder
from prunec.plan.buckets import least_loss

LEVELS = 10
ADDED_UP = 64
"""The same where times add up."""
GAP = 0.005
SECONDS = 20.0
"""HiGHS stops here with the best it has."""
Time = Callable[[Sequence[int]], float]
"""Rung of every cell → share of the dense time."""


def losses(ladder: Ladder) -> np.ndarray:
    """Loss at every rung, float64 [rungs]: the sum of the rises of what is gone."""
    total = np.concatenate([np.cumsum(ladder.scores[::-1])[::-1], [0.0]])
    return np.asarray(total[list(ladder.rungs)])


def choose_rungs(curves: Sequence[np.ndarray], time: Time, limit: float) -> list[int] | None:
    """The rung of every cell with least loss whose time is at most `limit`; None where not even the last ones are.

    `curves`: loss at every rung of each cell, float64 [rungs], from the dense one.
    """
    bottom = [len(curve) - 1 for curve in curves]
    if time(bottom) > limit:
        return None
    rungs = _solve(curves, time, limit)
    if rungs is None or time(rungs) > limit:
        rungs = _descend(curves, rungs or [0] * len(curves), bottom, time, limit)
    return improve(curves, rungs, time, limit)


def improve(curves: Sequence[np.ndarray], rungs: Sequence[int], time: Time, limit: float) -> list[int]:
    """Single rungs back up, and exchanges of one down for one up, for as long as the loss falls within `limit`."""
    now, best = list(rungs), sum(float(c[r]) for c, r in zip(curves, rungs, strict=True))
    while True:
        found: tuple[float, list[int]] | None = None
        for up in range(len(now)):
            if now[up] == 0:
                continue
            higher = [*now[:up], now[up] - 1, *now[up + 1 :]]
            gain = float(curves[up][now[up]] - curves[up][now[up] - 1])
            options = [(gain, higher)]
            for down in range(len(now)):
                if down != up and now[down] + 1 < len(curves[down]):
                    price = float(curves[down][now[down] + 1] - curves[down][now[down]])
                    options.append((gain - price, [*higher[:down], now[down] + 1, *higher[down + 1 :]]))
            for worth, tried in options:
                if worth > max(1e-12, 0.0 if found is None else found[0]) and time(tried) <= limit:
                    found = (worth, tried)
        if found is None or found[0] < 1e-6 * best:
            return now
        best, now = best - found[0], found[1]


def _descend(
    curves: Sequence[np.ndarray], rungs: list[int], bottom: Sequence[int], time: Time, limit: float
) -> list[int]:
    """Down by the rung that costs least loss for the time it saves, until the time is within `limit`."""
    left = time(rungs)
    while left > limit:
        steps = []
        for number, rung in enumerate(rungs):
            if rung < bottom[number]:
                tried = [*rungs[:number], rung + 1, *rungs[number + 1 :]]
                saved = left - time(tried)
                price = float(curves[number][rung + 1] - curves[number][rung])
                steps.append((price / max(saved, 1e-12), number))
        _, number = min(steps)
        rungs = [*rungs[:number], rungs[number] + 1, *rungs[number + 1 :]]
        left = time(rungs)
    return rungs


def _thinned(rungs: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, rungs - 1, min(rungs, most)).round().astype(int))


def _solve(curves: Sequence[np.ndarray], time: Time, limit: float) -> list[int] | None:
    count = len(curves)
    dense = [0] * count
    whole = time(dense)

    def at(*pairs: tuple[int, int]) -> float:
        rungs = dense.copy()
        for cell, rung in pairs:
            rungs[cell] = rung
        return time(rungs)

    def own_times(levels: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.array([at((c, int(r))) - whole for r in levels[c]]) for c in range(count)]

    last = [len(curve) - 1 for curve in curves]
    ends = [at((c, last[c])) - whole for c in range(count)]
    coupled = [
        (c, d)
        for c in range(count)
        for d in range(c + 1, count)
        if abs(at((c, last[c]), (d, last[d])) - whole - ends[c] - ends[d]) > 1e-9
    ]
    levels = [_thinned(len(curve), LEVELS if coupled else ADDED_UP) for curve in curves]
    alone, thinned = own_times(levels), [curve[own] for curve, own in zip(curves, levels, strict=True)]
    if not coupled:
        added_up = least_loss(thinned, [-own for own in alone], whole - limit)
        return None if added_up is None else [int(levels[c][i]) for c, i in enumerate(added_up)]
    problem = _Program([len(own) for own in levels])
    for c in range(count):
        problem.price(c, thinned[c], alone[c])
    for c, d in coupled:
        table = np.array([[at((c, int(i)), (d, int(j))) - whole for j in levels[d]] for i in levels[c]], np.float64)
        problem.couple(c, d, table - alone[c][:, None] - alone[d][None, :])
    chosen = problem.solve(limit - whole)
    return None if chosen is None else [int(levels[c][i]) for c, i in enumerate(chosen)]


class _Program:
    """The columns and rows of the mixed-integer program."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = list(sizes)
        self._first = np.cumsum([0, *sizes])
        self._loss: list[np.ndarray] = []
        self._time: list[np.ndarray] = []
        self._pairs: list[tuple[int, int, int]] = []
        self._columns = int(self._first[-1])

    def price(self, cell: int, loss: np.ndarray, time: np.ndarray) -> None:
        """Loss and time of each level of the next cell."""
        self._loss.append(loss)
        self._time.append(time)

    def couple(self, one: int, other: int, time: np.ndarray) -> None:
        """What two cells take together beyond what each takes alone, [levels of one, levels of other]."""
        self._pairs.append((one, other, self._columns))
        self._loss.append(np.zeros(time.size))
        self._time.append(time.ravel())
        self._columns += time.size

    def solve(self, limit: float) -> list[int] | None:
        rows, columns, values = list[int](), list[int](), list[float]()
        right: list[float] = []

        def add(row: int, own: np.ndarray, factor: float) -> None:
            rows.extend([row] * len(own))
            columns.extend(own.tolist())
            values.extend([factor] * len(own))

        for cell, size in enumerate(self._sizes):
            add(len(right), self._first[cell] + np.arange(size), 1.0)
            right.append(1.0)
        for one, other, first in self._pairs:
            table = first + np.arange(self._sizes[one] * self._sizes[other]).reshape(self._sizes[one], -1)
            for cell, own in ((one, table), (other, table.T)):
                for level, line in enumerate(own):
                    add(len(right), line, 1.0)
                    add(len(right), self._first[cell] + np.array([level]), -1.0)
                    right.append(0.0)
        equal = coo_array((values, (rows, columns)), shape=(len(right), self._columns)).tocsr()
        whole = np.zeros(self._columns)
        whole[: self._first[-1]] = 1
        loss, time = np.concatenate(self._loss), np.concatenate(self._time)
        answer = milp(
            loss / max(loss.max(), 1e-300),
            integrality=whole,
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(equal, right, right), LinearConstraint(time[None, :], -np.inf, limit)],
            options={"time_limit": SECONDS, "mip_rel_gap": GAP},
        )
        if answer.x is None:
            return None
        return [int(np.argmax(answer.x[f : f + n])) for f, n in zip(self._first[:-1], self._sizes, strict=True)]
