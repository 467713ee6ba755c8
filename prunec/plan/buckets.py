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
    taken: list[tuple[np.ndarray, np.ndarray, int]] = []
    for loss, saving in zip(losses, savings, strict=True):
        steps = np.clip(np.floor(saving / needed * BUCKETS * (1 + 1e-12)), 0, BUCKETS).astype(int)
        after, chosen, source = np.full(BUCKETS + 1, np.inf), np.zeros(BUCKETS + 1, np.int16), 0
        for option in np.flatnonzero((saving >= 0) | (np.arange(len(saving)) == 0)).tolist():
            rest = best[BUCKETS - steps[option] :]  # from where the step leads to the end, or beyond it
            found = np.full(BUCKETS + 1, np.inf)
            found[steps[option] :] = best[: BUCKETS + 1 - steps[option]]
            found[BUCKETS] = rest.min()
            better = found + loss[option] < after
            after[better], chosen[better] = (found + loss[option])[better], option
            if better[BUCKETS]:
                source = BUCKETS - int(steps[option]) + int(np.argmin(rest))
        taken.append((chosen, steps, source))
        best = after
    if not np.isfinite(best[BUCKETS]):
        return None
    options, bucket = list[int](), BUCKETS
    for chosen, steps, source in reversed(taken):
        options.append(int(chosen[bucket]))
        bucket = source if bucket == BUCKETS else bucket - int(steps[options[-1]])
    return options[::-1]
