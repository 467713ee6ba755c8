"""How much larger a drop may be on other data of the same kind: one-sided confidence bounds on a mean over samples."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaincinv, ndtri

CONFIDENCE = 0.9


def upper_share(count: float, samples: int) -> float:
    """Clopper and Pearson's bound on a share, of which `count` in `samples` were seen (whole or not).

    With nothing seen it is 1 − 0.1^(1/n), about 2.3 / n.
    """
    return 1.0 if count >= samples else float(betaincinv(count + 1, samples - count, CONFIDENCE))


def upper_mean(losses: np.ndarray) -> float:
    """Bound on the mean of independent `losses` [n]: `upper_share` where all are 0 or 1, else the normal one."""
    if np.isin(losses, (0.0, 1.0)).all():
        return upper_share(float(losses.sum()), len(losses))
    spread = float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else 1.0
    return float(losses.mean()) + float(ndtri(CONFIDENCE)) * spread


def finest_drop(samples: int) -> float:
    """The least drop that this many samples can rule out."""
    return upper_share(0, samples)


def samples_for(drop: float) -> int | None:
    """The fewest samples that can rule out a `drop` in (0, 1), None for any other; the inverse of `finest_drop`."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-drop)) if 0 < drop < 1 else None
