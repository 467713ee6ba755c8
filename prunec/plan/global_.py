"""Scope "global": one threshold through the normalised scores of all groups.

A step goes when the mean score of its channels is under the threshold, so that a step stands for what it costs and not
for its best or worst channel.
"""

from __future__ import annotations

import numpy as np

from prunec.plan.allocate import Ladder


def score_keys(ladder: Ladder) -> np.ndarray:
    """[steps, 1]: mean normalised score of what goes, never below that of an earlier step."""
    means = [float(ladder.chunk(i).mean()) for i in range(len(ladder.rungs) - 1)]
    return np.maximum.accumulate(np.array(means, np.float64))[:, None]
