"""Scope "layer": the same share of every group goes.

A step from k to k' kept of n is taken when the wanted share passes the middle, 1 − (k + k')/2n: rounding to the nearest
width. Among groups that step at the same share, the one with the least important channels goes first.
"""

from __future__ import annotations

import numpy as np

from prunec.plan.allocate import Ladder


def share_keys(ladder: Ladder) -> np.ndarray:
    """[steps, 2]: the share at which each step is taken, and the mean score of what goes."""
    rungs = np.array(ladder.rungs, np.float64)
    shares = 1 - (rungs[:-1] + rungs[1:]) / 2 / ladder.size
    means = [float(ladder.chunk(i).mean()) for i in range(len(shares))]
    return np.stack([shares, np.array(means, np.float64)], axis=1)
