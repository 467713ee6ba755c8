"""Which channels share a group: permutations that let a pattern keep more saliency (NVIDIA ASP's idea).

Permuting a layer's input channels together with whatever makes them changes nothing at run time, but decides which
weights compete in an N:M group, or share an r×c block; permuting outputs decides which rows share a block. Each step
takes one random member out of every group and deals them out anew, the best way there is (a linear assignment), so that
what is kept never falls. Dealing x to what is left of group A keeps, in every lane,

    N:M     top_N(A ∪ x) = top_N(A) + max(x − θ, 0),   θ = the N-th largest of A
    blocks  max(ΣA + x − τ, 0),                         θ = τ − ΣA,   τ from the wanted level

so one matrix Σ_lanes max(x, θ) − θ scores all exchanges at once. The number of steps is bounded by work, not by time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from prunec.patterns import Layout, Pattern
from prunec.patterns.block import Block
from prunec.patterns.nm import NM
from prunec.patterns.select import kept_count

Array = npt.NDArray[np.floating]
Index = npt.NDArray[np.int64]

STEPS = 600
WORK = 8e8
"""Comparisons in all: fewer steps for wide layers (127 of 1536 columns), none below `FEWEST`."""
FEWEST = 30
TABLE = 64
"""Groups that are dealt to at once: assignment takes cubic time."""
LANES = 256
"""Rows of the saliency that take part; of more, a seeded sample."""


@dataclass(frozen=True)
class Side:
    """What columns in consecutive groups of `group` keep. `lanes` [lanes, columns]: saliency, each row by itself.

    `keep` of each group's members stay in each lane; 0: groups stay whole where their sum beats `threshold`.
    """

    lanes: Array
    group: int
    keep: int
    threshold: float = 0.0

    def at(self, columns: Index) -> Side:
        """The same side of some of the columns."""
        return replace(self, lanes=self.lanes[:, columns])


def input_side(saliency: Array, layout: Layout, pattern: Pattern, level: float) -> Side | None:
    """Input channels of a layer, None where their order does not matter. `saliency` [outputs, columns], additive."""
    if isinstance(pattern, NM):
        return Side(saliency.reshape(-1, layout.channels), pattern.m, pattern.n)
    if isinstance(pattern, Block) and pattern.c > 1:
        pooled = saliency.reshape(-1, pattern.r, layout.positions, layout.channels).sum(axis=1)
        return Side(pooled.reshape(-1, layout.channels), pattern.c, 0, _threshold(saliency, pattern, level))
    return None


def output_side(saliency: Array, pattern: Pattern, level: float) -> Side | None:
    """Outputs of a layer, None where their order does not matter."""
    if not isinstance(pattern, Block) or pattern.r == 1:
        return None
    pooled = saliency.reshape(len(saliency), -1, pattern.c).sum(axis=2)
    return Side(np.ascontiguousarray(pooled.T), pattern.r, 0, _threshold(saliency, pattern, level))


def _threshold(saliency: Array, pattern: Block, level: float) -> float:
    """The least block that stays as the columns lie now."""
    sums = pattern.pooled(saliency).ravel()
    kept = kept_count(sums.size, level)
    return float(np.partition(sums, sums.size - kept)[sums.size - kept])


def order_inputs(saliency: Array, layout: Layout, pattern: Pattern, level: float, seed: int = 0) -> Index | None:
    """New order of the input channels, or None where order does not matter. `saliency` [outputs, columns], additive."""
    side = input_side(saliency, layout, pattern, level)
    return None if side is None else search([side], seed)


def order_outputs(saliency: Array, pattern: Pattern, level: float, seed: int = 0) -> Index | None:
    """New order of the outputs, or None where order does not matter."""
    side = output_side(saliency, pattern, level)
    return None if side is None else search([side], seed)


def search(sides: Sequence[Side], seed: int = 0) -> Index:
    """One order of the columns that all `sides` have; the identity where nothing better was found.

    Where sides have groups of different sizes, those with the longest decide.
    """
    columns, group = sides[0].lanes.shape[1], max(side.group for side in sides)
    count = columns // group
    if columns % group or count < 2:
        return np.arange(columns)
    random = np.random.default_rng(seed)
    goals = _goals([side for side in sides if side.group == group], random)
    members = _start(goals, columns, group)
    lanes = sum(goal.lanes.shape[1] for goal in goals)
    for _ in range(int(np.clip(WORK / (count * min(count, TABLE) * lanes), FEWEST, STEPS))):
        for table in np.array_split(random.permutation(count), -(-count // TABLE)):
            _deal(members, table, random.integers(0, group, len(table)), goals)
    # groups in a settled order, members too: a permutation that changes nothing else
    members = np.sort(members, axis=1)[np.argsort(members.min(axis=1))]
    identity = np.arange(columns).reshape(count, group)
    found: Index = (members if _kept(goals, members) > _kept(goals, identity) else identity).ravel()
    return found


def _deal(members: Index, table: Index, out: Index, goals: Sequence[_Goal]) -> None:
    """Take member `out` of every group at the table and deal them out anew, in place."""
    groups = members[table]
    dealt = groups[np.arange(len(table)), out]
    rest = groups[np.arange(groups.shape[1]) != out[:, None]].reshape(len(table), -1)
    gains = np.sum([goal.gains(rest, dealt) for goal in goals], axis=0)
    members[table, out] = dealt[linear_sum_assignment(gains, maximize=True)[1]]


@dataclass(frozen=True)
class _Goal:
    """A side as the search reads it: `lanes` [columns, lanes] float32, `threshold` [lanes]."""

    lanes: npt.NDArray[np.float32]
    keep: int
    threshold: npt.NDArray[np.float32]

    def kept(self, members: Index) -> float:
        """Saliency that groups `members` [groups, M] keep, in blocks above their threshold."""
        groups = self.lanes[members]
        if self.keep:
            return float(sum(part.sum(dtype=np.float64) for part in _largest(groups, self.keep)))
        return float(np.maximum(groups.sum(axis=1) - self.threshold, 0).sum(dtype=np.float64))

    def gains(self, rest: Index, dealt: Index) -> npt.NDArray[np.float32]:
        """[groups, columns dealt]: what each column adds to each of the groups that are short of a member."""
        left = self.lanes[rest]
        theta = _largest(left, self.keep)[-1] if self.keep else self.threshold - left.sum(axis=1)
        lanes, ones = self.lanes[dealt], np.ones(self.lanes.shape[1], np.float32)
        found, higher = np.empty((len(rest), len(dealt)), np.float32), np.empty_like(lanes)
        for group, own in enumerate(theta):
            np.maximum(lanes, own, out=higher)
            found[group] = higher @ ones
        return found - (theta @ ones)[:, None]


def _goals(sides: Sequence[Side], random: np.random.Generator) -> list[_Goal]:
    """At most `LANES` lanes together, in proportion."""
    total = sum(len(side.lanes) for side in sides)
    goals = []
    for side in sides:
        lanes = side.lanes
        wanted = max(int(LANES * len(lanes) / total), 1)
        if total > LANES and wanted < len(lanes):
            lanes = lanes[np.sort(random.choice(len(lanes), wanted, replace=False))]
        threshold = np.full(len(lanes), side.threshold, np.float32)
        goals.append(_Goal(np.ascontiguousarray(lanes.T, dtype=np.float32), side.keep, threshold))
    return goals


def _start(goals: Sequence[_Goal], columns: int, group: int) -> Index:
    """Strong columns beside weak ones for N:M, beside strong ones for blocks; as they lie, where that keeps more."""
    strength = np.sum([goal.lanes.sum(axis=1, dtype=np.float64) for goal in goals], axis=0)
    ranked = np.argsort(-strength, kind="stable")
    dealt = ranked.reshape(group, -1).copy()
    dealt[1::2] = dealt[1::2, ::-1]
    starts = [np.arange(columns).reshape(-1, group), np.ascontiguousarray(dealt.T), ranked.reshape(-1, group)]
    best: Index = starts[int(np.argmax([_kept(goals, members) for members in starts]))].copy()
    return best


def _kept(goals: Sequence[_Goal], members: Index) -> float:
    return sum(goal.kept(members) for goal in goals)


def _largest(groups: npt.NDArray[np.float32], count: int) -> list[npt.NDArray[np.float32]]:
    """The `count` largest members of every group and lane, the largest first, by compare and exchange."""
    left = [groups[:, i] for i in range(groups.shape[1])]
    found = []
    for _ in range(count):
        top = left[0]
        rest = []
        for other in left[1:]:
            rest.append(np.minimum(top, other))
            top = np.maximum(top, other)
        found.append(top)
        left = rest
    return found
