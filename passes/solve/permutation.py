"""Which channels share a group: permutations that let a pattern keep more saliency (NVIDIA ASP's idea).

Permuting a layer's input channels together with whatever makes them changes nothing at run time, but decides which
weights compete in an N:M group, or share an r×c block; permuting outputs decides which rows share a block. The search
anneals: each step pairs all groups at random, works out what every exchange of one member between the two groups of a
pair would gain, and takes the best one plus Gumbel noise whose temperature falls to zero. For N:M the M² exchanges of a
pair cost one comparison each, because

    top_N(A − i + j) = top_N(A − i) + max(x_j − θ, 0),   θ = the N-th largest of A − i.

For blocks the kept saliency at threshold τ is Σ max(block sum − τ, 0), τ from the wanted level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from prunec.patterns import Layout, Pattern
from prunec.patterns.block import Block
from prunec.patterns.nm import NM
from prunec.patterns.select import kept_count

Array = npt.NDArray[np.floating]
Index = npt.NDArray[np.int64]

STEPS = 1500
WORK = 1.5e9
"""Comparisons in all, for layers so wide that `STEPS` steps would take minutes; those only climb, without any heat."""
LANES = 256
"""Rows of the saliency that take part; of more, a seeded sample."""
TEMPERATURE = 0.1
"""At the start, relative to the mean saliency of a column (times √lanes)."""
CHECK_EVERY = 50


class Objective(ABC):
    """What a group of columns [pairs, M, lanes] keeps, and what it would keep after each exchange."""

    def __init__(self, size: int) -> None:
        self.size = size

    @abstractmethod
    def kept(self, groups: Array) -> Array:
        """[pairs]: saliency that each group keeps."""

    @abstractmethod
    def exchanged(self, groups: Array, others: Array) -> Array:
        """[pairs, M, M]: what A − i + j keeps, for i in A and j in the other group."""


class KeepN(Objective):
    """N of M per lane."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__(m)
        self.n = n

    def kept(self, groups: Array) -> Array:
        return _total(self._ranked(groups)[: self.n])

    def exchanged(self, groups: Array, others: Array) -> Array:
        ranked = self._ranked(groups)
        last, next_one = ranked[self.n - 1][:, None], ranked[self.n][:, None]
        inside = groups >= last
        lost = np.where(inside, groups - next_one, 0).sum(axis=2)
        threshold = np.where(inside, next_one, last)
        gained = np.maximum(others[:, None] - threshold[:, :, None], 0).sum(axis=3)
        found: Array = (_total(ranked[: self.n])[:, None] - lost)[:, :, None] + gained
        return found

    def _ranked(self, groups: Array) -> list[Array]:
        """The N + 1 largest members of every group and lane, the largest first, by compare and exchange."""
        left = [groups[:, i] for i in range(self.size)]
        found = []
        for _ in range(self.n + 1):
            top = left[0]
            rest = []
            for other in left[1:]:
                rest.append(np.minimum(top, other))
                top = np.maximum(top, other)
            found.append(top)
            left = rest
        return found


def _total(parts: list[Array]) -> Array:
    """Over parts and lanes, [pairs]."""
    found: Array = np.sum([part.sum(axis=1) for part in parts], axis=0)
    return found


class KeepSums(Objective):
    """Whole groups whose sum beats a threshold per lane; a lane is a row of blocks."""

    def __init__(self, size: int, threshold: float) -> None:
        super().__init__(size)
        self.threshold = threshold

    def kept(self, groups: Array) -> Array:
        found: Array = np.maximum(groups.sum(axis=1) - self.threshold, 0).sum(axis=1)
        return found

    def exchanged(self, groups: Array, others: Array) -> Array:
        without = (groups.sum(axis=1) - self.threshold)[:, None] - groups
        found: Array = np.maximum(without[:, :, None] + others[:, None], 0).sum(axis=3)
        return found


def objective(saliency: Array, group: int, pattern: Pattern, level: float) -> Objective:
    """For columns of `saliency` [lanes, columns] in consecutive groups of `group`."""
    if isinstance(pattern, NM):
        return KeepN(pattern.n, pattern.m)
    sums = saliency.reshape(len(saliency), -1, group).sum(axis=2).ravel()
    kept = kept_count(sums.size, level)
    return KeepSums(group, float(np.partition(sums, sums.size - kept)[sums.size - kept]))


def order_inputs(saliency: Array, layout: Layout, pattern: Pattern, level: float, seed: int = 0) -> Index | None:
    """New order of the input channels, or None where order does not matter. `saliency` [outputs, columns], additive."""
    lanes = saliency.reshape(-1, layout.channels)
    if isinstance(pattern, NM):
        return search(lanes, pattern.m, pattern, level, seed)
    if isinstance(pattern, Block) and pattern.c > 1:
        pooled = saliency.reshape(-1, pattern.r, layout.positions, layout.channels).sum(axis=1)
        return search(pooled.reshape(-1, layout.channels), pattern.c, pattern, level, seed)
    return None


def order_outputs(saliency: Array, pattern: Pattern, level: float, seed: int = 0) -> Index | None:
    """New order of the outputs, or None where order does not matter."""
    if not isinstance(pattern, Block) or pattern.r == 1:
        return None
    pooled = saliency.reshape(len(saliency), -1, pattern.c).sum(axis=2)
    return search(np.ascontiguousarray(pooled.T), pattern.r, pattern, level, seed)


def search(
    saliency: Array, group: int, pattern: Pattern, level: float, seed: int = 0, steps: int | None = None
) -> Index:
    """Order of the columns of `saliency` [lanes, columns]; the identity where nothing better was found."""
    columns = saliency.shape[1]
    if columns % group or columns < 2 * group:
        return np.arange(columns)
    random = np.random.default_rng(seed)
    if len(saliency) > LANES:
        saliency = saliency[np.sort(random.choice(len(saliency), LANES, replace=False))]
    lanes = np.ascontiguousarray(saliency.T, dtype=np.float32)
    goal = objective(saliency, group, pattern, level)
    count = columns // group
    half = count // 2
    if steps is None:
        steps = int(np.clip(WORK / (2 * half * group * group * len(saliency)), 100, STEPS))
    members = np.arange(columns).reshape(count, group)
    best, best_kept = members.copy(), float(goal.kept(lanes[members]).sum())
    heat = TEMPERATURE * float(saliency.mean()) * np.sqrt(len(saliency)) if steps == STEPS else 0.0
    for step in range(steps):
        pairs = random.permutation(count)
        _exchange(members, pairs[:half], pairs[half : 2 * half], lanes, goal, heat * (1 - step / steps) ** 2, random)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            kept = float(goal.kept(lanes[members]).sum())
            if kept > best_kept:
                best, best_kept = members.copy(), kept
    # groups in a settled order, members too: a permutation that changes nothing else
    return np.sort(best, axis=1)[np.argsort(best.min(axis=1))].ravel()


def _exchange(
    members: Index, a: Index, b: Index, lanes: Array, goal: Objective, heat: float, random: np.random.Generator
) -> None:
    """At most one exchange in each pair of groups (a[k], b[k]), in place."""
    left, right = lanes[members[a]], lanes[members[b]]
    now = goal.kept(left) + goal.kept(right)
    gains = goal.exchanged(left, right) + goal.exchanged(right, left).transpose(0, 2, 1) - now[:, None, None]
    noisy = gains.reshape(len(a), -1) + heat * random.gumbel(size=(len(a), goal.size**2))
    choice = noisy.argmax(axis=1)
    taken = noisy[np.arange(len(a)), choice] > heat * random.gumbel(size=len(a))
    i, j = np.divmod(choice[taken], goal.size)
    a, b = a[taken], b[taken]
    members[a, i], members[b, j] = members[b, j], members[a, i]
