"""The multiple-choice knapsack where savings add up, exact but for the width of a bucket in each cell.

    f_c(s) = min over options o of  loss[c, o] + f_{c−1}(s − saving[c, o]),   s in `BUCKETS` steps up to what is needed

(Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11.) Savings are rounded down to whole buckets, so that
what is chosen saves enough: it loses no more than the best choice for `cells / BUCKETS` more than is needed, and where
only less than that can be had beyond it, nothing may be found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BUCKETS = 50_000


def least_loss(losses: Sequence[np.ndarray], savings: Sequence[np.ndarray], needed: float) -> list[int] | None:
    """An option of each cell, so that the sum of the losses is least and the savings come to `needed` or more.

    `losses`, `savings`: float64 [options] of each cell. None where they do not come to it.
    """
    if needed <= 0:
        return [int(np.argmin(own)) for own in losses]
    best = np.full(BUCKETS + 1, np.inf)
    best[0] = 0.0
    taken = []
    for loss, saving in zip(losses, savings, strict=True):
        whole = np.clip(np.floor(saving / needed * BUCKETS * (1 + 1e-12)), 0, BUCKETS).astype(int)
        after, chosen = np.full(BUCKETS + 1, np.inf), np.zeros(BUCKETS + 1, np.intp)
        before = np.zeros(BUCKETS + 1, np.intp)
        for option in np.flatnonzero((saving >= 0) | (np.arange(len(saving)) == 0)):
            for place, found, source in _moved(best, int(whole[option])):
                better = found + loss[option] < after[place]
                after[place] = np.where(better, found + loss[option], after[place])
                chosen[place] = np.where(better, option, chosen[place])
                before[place] = np.where(better, source, before[place])
        taken.append((chosen, before))
        best = after
    if not np.isfinite(best[BUCKETS]):
        return None
    options, bucket = list[int](), BUCKETS
    for chosen, before in reversed(taken):
        options.append(int(chosen[bucket]))
        bucket = int(before[bucket])
    return options[::-1]


def _moved(best: np.ndarray, step: int) -> list[tuple[slice, np.ndarray, np.ndarray]]:
    """Where `best` goes by a saving of `step` buckets: one place each below the end, the least of the rest at the end.

    (places, losses, the buckets that they come from)
    """
    last = len(best) - 1
    end = last - step + int(np.argmin(best[last - step :]))
    below = slice(step, last)
    return [
        (below, best[: last - step], np.arange(last - step)),
        (slice(last, None), best[end : end + 1], np.array([end])),
    ]
