"""The ratio of two contenders and how sure we are of it.

Block i of the baseline ran next to block i of the subject (A B B A), so the two share the machine's state and

    r_i = median(baseline block i) / median(subject block i),        speed-up = median_i r_i.

The same model in two processes differs by up to a percent for as long as the processes live (memory layout, thread
placement), which more blocks cannot average out. So blocks come from several generations of fresh processes, and the
95 % interval is a percentile bootstrap of the median with two levels (Kalibera and Jones 2013): resample the
generations with replacement, then the pairs within each, and take the 2.5 % and 97.5 % quantiles of the medians.

With fewer than six pairs no interval for a median reaches 95 % (1 - 2 * 0.5**5 = 0.94), so `MIN_BLOCKS` is six.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from prunec.measure.results import Speedup

MIN_BLOCKS = 6
RESAMPLES = 10_000


def ratio(baseline: ArrayLike, subject: ArrayLike, *, seed: int) -> Speedup:
    """Speed-up of `subject` over `baseline` from paired block medians, shape [generations, blocks], in any unit.

    Raises ValueError for unpaired or too few blocks.
    """
    first, second = np.asarray(baseline, np.float64), np.asarray(subject, np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"blocks are not paired: {first.shape} and {second.shape}")
    if first.size < MIN_BLOCKS:
        raise ValueError(f"{first.size} blocks, but an interval needs {MIN_BLOCKS}")
    ratios = first / second
    return Speedup(median=float(np.median(ratios)), ci95=bootstrap_median(ratios, seed=seed))


def bootstrap_median(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % two-level percentile-bootstrap interval of the median of `values` [generations, blocks]."""
    generations, blocks = values.shape
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, generations, size=(resamples, generations, 1))
    columns = rng.integers(0, blocks, size=(resamples, generations, blocks))
    medians = np.median(values[rows, columns].reshape(resamples, -1), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)
