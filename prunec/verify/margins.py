"""How much larger the drop of a user's metric may be on other data, found by asking the metric itself.

A metric gives one number for a model, not one per sample. But it does not see which model answers: `GROUPS` times it
gets the dense model's answers with those of the pruned one to every `GROUPS`-th sample. Where it is a mean over samples
the drops d_g of these mixtures add up to the whole drop, and their spread says how sure that is:

    upper = Σ d_g + t · sqrt(GROUPS · var(d_g)),    t the 90 % point of Student's distribution

which knows of changes for the better that hide as many for the worse. Where samples are asked about each other, as in a
share of right answers that are looked for among all samples, the drops of the mixtures do not add up. What they are off
by is what pairs of samples lose together; how sure that is the groups do not say, so it is taken to be as uncertain as
it is large, and added:

    upper = d + |Σ d_g − d| + t · sqrt(GROUPS · var(d_g)),    d the drop of all samples at once
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import blake2b

import numpy as np
from scipy.special import stdtrit

from prunec.array_store import ArrayStore
from prunec.verify.bounds import CONFIDENCE, upper_share
from prunec.verify.inputs import Feeds, Run

GROUPS = 6
RAM_BYTES, MOST_BYTES = 256 * 1024**2, 2 * 1024**3
"""Of kept answers: in memory, and at all."""
ROUNDING = 1e-6
"""Of the metric's size: what adds up, adds up to this."""


class Remembered:
    """A model's answers, kept in memory and then in a file up to a limit; beyond it the model is asked again."""

    def __init__(self, run: Run) -> None:
        self._run, self._known, self._bytes = run, dict[bytes, list[str]](), 0
        self._store = ArrayStore[tuple[bytes, str]](RAM_BYTES)

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Feeds:
        key = _digest(feeds)
        if key in self._known:  # copies: a metric may write to what it gets
            return {name: self._store.get((key, name)).copy() for name in self._known[key]}
        found = self._run(feeds)
        self._bytes += sum(array.nbytes for array in found.values())
        if self._bytes <= MOST_BYTES:
            for name, array in found.items():
                self._store.put((key, name), array.copy())
            self._known[key] = list(found)
        return found


def upper_drop(
    evaluate: Callable[[Run], float], dense: Run, pruned: Run, before: float, after: float, samples: int
) -> float | None:
    """90 % bound on the drop from `before` to `after` for other data of the same kind; None where nothing says.

    `samples`: that the metric asks about. Both models are asked again about all of them: `Remembered` ones know.

    Of a share it is never below Clopper and Pearson's bound, as if the drop were all that changed: where hardly any
    answer changes, the spread of the groups says too little. Of other numbers nothing is said where all groups are
    alike.
    """
    if not samples:
        return None
    drops = np.array([before - evaluate(_Mixed(dense, pruned, group)) for group in range(GROUPS)])
    drop = before - after
    spread = math.sqrt(GROUPS * float(drops.var(ddof=1)))
    off = abs(float(drops.sum()) - drop)
    together = off if off > ROUNDING * max(1.0, abs(before)) else 0.0
    upper = drop + together + float(stdtrit(GROUPS - 1, CONFIDENCE)) * spread
    if 0 <= before <= 1 and 0 <= after <= 1:
        return min(max(upper, upper_share(max(drop, 0.0) * samples, samples)), 1.0)
    return upper if spread > 0 else None


class _Mixed:
    """The dense model, but for one group of the samples."""

    def __init__(self, dense: Run, pruned: Run, group: int) -> None:
        self._dense, self._pruned, self._group = dense, pruned, group
        self._seen = 0

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Feeds:
        rows = samples_in(feeds)
        mine = (self._seen + np.arange(rows)) % GROUPS == self._group
        self._seen += rows
        if not mine.any():
            return self._dense(feeds)
        if mine.all():
            return self._pruned(feeds)
        one, other = self._dense(feeds), self._pruned(feeds)
        if any(array.shape[:1] != (rows,) or array.shape != other[name].shape for name, array in one.items()):
            return other if mine[0] else one
        return {
            name: np.where(mine.reshape(-1, *[1] * (array.ndim - 1)), other[name], array) for name, array in one.items()
        }


def samples_in(feeds: Mapping[str, np.ndarray]) -> int:
    """The longest leading axis of the inputs, 1 where they have none."""
    return max((len(array) for array in feeds.values() if array.ndim), default=1)


def _digest(feeds: Mapping[str, np.ndarray]) -> bytes:
    found = blake2b(digest_size=16)
    for name, array in sorted(feeds.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).tobytes() if array.dtype != object else repr(array.tolist()).encode())
    return found.digest()
