"""The ratio of two contenders and how sure we are of it.

Block i of the baseline ran next to block i of the subject (A B B A), so the two share the machine's state and

    r_i = median(baseline block i) / median(subject block i),        speed-up = median_i r_i.

The 95 % interval is the percentile bootstrap of that median over the pairs (Efron 1979): resample the pairs with
replacement, take the 2.5 % and 97.5 % quantiles of the resampled medians. With fewer than six pairs no interval for a
median reaches 95 % (1 - 2 * 0.5**5 = 0.94), so `MIN_BLOCKS` is six.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunec.measure.results import Speedup

MIN_BLOCKS = 6
RESAMPLES = 10_000


def ratio(baseline: Sequence[float], subject: Sequence[float], *, seed: int) -> Speedup:
    """Speed-up of `subject` over `baseline` from paired block medians (any unit, both the same length).

    Raises ValueError for unpaired or too few blocks.
    """
    if len(baseline) != len(subject):
        raise ValueError(f"blocks are not paired: {len(baseline)} and {len(subject)}")
    if len(baseline) < MIN_BLOCKS:
        raise ValueError(f"{len(baseline)} blocks, but an interval needs {MIN_BLOCKS}")
    ratios = np.asarray(baseline, np.float64) / np.asarray(subject, np.float64)
    low, high = bootstrap_median(ratios, seed=seed)
    return Speedup(median=float(np.median(ratios)), ci95=(low, high))


def bootstrap_median(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the median of `values` (1-D)."""
    draws = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), (0.025, 0.975))
    return float(low), float(high)
