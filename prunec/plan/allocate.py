"""One path from the dense model to the floors, cut short where the budget is met.

Each cell (`cells`) is a ladder: its channels from best to worst, and the numbers of them that may be kept. Going down
one rung cuts the worst channels left. A scope puts all rungs of all ladders into one order, the path: sorted by a key
of each (`uniform`, `global_`), or one after the other (`least_loss`). Every prefix of it is a valid cut with rounding
and floors already in it, a longer prefix cuts a superset, so the shortest prefix that meets a budget meets it exactly
and a larger budget keeps a superset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prunec.graph import Analysis, Group
from prunec.plan.cells import Cell
from prunec.plan.rounding import levels


@dataclass(frozen=True)
class Ladder:
    """`order`: the cell's group-local channels, best first; `scores` in that order; `rungs`: decreasing kept counts."""

    group: Group
    order: np.ndarray
    scores: np.ndarray
    rungs: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.order)

    def ids(self, rung: int) -> np.ndarray:
        """Class ids of the channels that go when stepping from `rung` to the next."""
        return np.asarray(self.group.channels[self.order[self.rungs[rung + 1] : self.rungs[rung]]])

    def chunk(self, rung: int) -> np.ndarray:
        """Scores of the channels that go when stepping from `rung` to the next."""
        return self.scores[self.rungs[rung + 1] : self.rungs[rung]]


Keys = Callable[[Ladder], np.ndarray]
"""Keys of a ladder's steps, float64 [rungs − 1, k], compared lexicographically; the first column never decreases."""


@dataclass(frozen=True)
class Path:
    """Steps of all ladders in order: `steps[i]` is the ladder that goes down one rung, `keys[i]` its first key."""

    analysis: Analysis
    ladders: tuple[Ladder, ...]
    steps: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def kept(self, length: int) -> list[int]:
        """Channels that each ladder keeps after the first `length` steps."""
        down = np.bincount(self.steps[:length], minlength=len(self.ladders))
        return [ladder.rungs[d] for ladder, d in zip(self.ladders, down.tolist(), strict=True)]

    def alive(self, length: int) -> np.ndarray:
        """bool per class id after the first `length` steps."""
        alive = np.ones(self.analysis.channel_count, bool)
        for ladder, kept in zip(self.ladders, self.kept(length), strict=True):
            alive[ladder.group.channels[ladder.order[kept:]]] = False
        return alive

    def share_kept(self, length: int) -> float:
        """Share of all channels on the path that stays."""
        total = sum(ladder.size for ladder in self.ladders)
        return sum(self.kept(length)) / total if total else 1.0

    def shortest(self, is_met: Callable[[int], bool]) -> int | None:
        """Length of the shortest prefix that meets a condition (monotone along the path), or None."""
        low, high = 0, len(self)
        if not is_met(high):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if is_met(middle) else (middle + 1, high)
        return high


Arrange = Callable[[Analysis, tuple[Ladder, ...]], Path]
Rank = Callable[[Cell, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""A cell and which of its channels have to stay (bool [size]) → its channels, best first, and their scores."""


@dataclass(frozen=True)
class Planned:
    """What a path is made from: normalised scores, a unit per cell (`rounding`), the least share that stays.

    `rank` puts the channels of a cell in order, by their scores where it is None.
    """

    analysis: Analysis
    groups: Mapping[str, Group]
    cells: Sequence[Cell]
    scores: Mapping[str, np.ndarray]
    units: Sequence[int]
    floor: float
    rank: Rank | None = None

    def path(self, arrange: Arrange) -> Path:
        """The path in which no axis of any tensor runs empty, however far one goes."""
        protected: set[tuple[str, int]] = set()
        while True:
            ladders = tuple(
                self._ladder(cell, unit, protected) for cell, unit in zip(self.cells, self.units, strict=True)
            )
            path = arrange(self.analysis, ladders)
            empty = self.analysis.empty_axes(path.alive(len(path)))
            if not empty:
                return path
            protected |= {self._best(ids) for ids in empty}

    def _ladder(self, cell: Cell, unit: int, protected: set[tuple[str, int]]) -> Ladder:
        stays = np.array([(cell.group, int(i)) in protected for i in cell.local])
        order, scores = (self.rank or self._by_score)(cell, stays)
        experts = min(self.groups[cell.group].experts or 1, cell.size)
        least = max(math.ceil(self.floor * cell.size - 1e-9), int(stays.sum()), experts)
        rungs = levels(cell.size, unit, least, is_loss=cell.group in self._fragmented)
        return Ladder(self.groups[cell.group], order, scores, tuple(rungs))

    def _by_score(self, cell: Cell, stays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = self.scores[cell.group][cell.local]
        order = np.lexsort((cell.local, -scores, ~stays))
        return cell.local[order], scores[order]

    def _best(self, ids: np.ndarray) -> tuple[str, int]:
        """The most important channel of an axis, to be kept for it."""
        group_of, local = self._places
        places = [(self._ids[group_of[c]], int(local[c])) for c in np.unique(ids).tolist() if group_of[c] >= 0]
        return max(places, key=lambda place: (float(self.scores[place[0]][place[1]]), place[0], -place[1]))

    @cached_property
    def _fragmented(self) -> frozenset[str]:
        """Groups with a cell that is narrower than its unit: their cells lose multiples instead of keeping them."""
        pairs = zip(self.cells, self.units, strict=True)
        return frozenset(cell.group for cell, unit in pairs if cell.size < unit)

    @cached_property
    def _ids(self) -> list[str]:
        return list(self.groups)

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        group_of = np.full(self.analysis.channel_count, -1, np.int64)
        local = np.full(self.analysis.channel_count, -1, np.int64)
        for number, group in enumerate(self.groups.values()):
            group_of[group.channels] = number
            local[group.channels] = np.arange(group.size)
        return group_of, local


def by_key(keys: Keys) -> Arrange:
    """Sort all steps by key; equal keys go in the order of the ladders."""

    def arrange(analysis: Analysis, ladders: tuple[Ladder, ...]) -> Path:
        rows = [keys(ladder) for ladder in ladders]
        table = np.concatenate(rows) if rows else np.zeros((0, 1))
        owner = np.repeat(np.arange(len(ladders)), [len(r) for r in rows])
        order = np.lexsort((owner, *table.T[::-1]))
        return Path(analysis, ladders, owner[order], table[order, 0])

    return arrange
