"""Bring the scores of different groups to one scale before one threshold is drawn through all of them.

Criteria sum over weights whose number and size differ from layer to layer; without normalising, a global threshold
empties the layers with small numbers. Ranks inside a group never change.

    none         scores as they are (LAMP compares by itself)
    mean         s / mean(s): 1 is an average channel of its group
    max          s / max(s): 1 is the best channel of its group
    standardise  (s − mean(s)) / std(s): FLAP (arXiv 2312.11983)
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

Normalise = Literal["none", "mean", "max", "standardise"]
NORMALISATIONS: tuple[Normalise, ...] = get_args(Normalise)


def normalise(scores: np.ndarray, how: Normalise) -> np.ndarray:
    """Scores [n] of one group on the common scale; a group of equal scores stays equal."""
    if how == "none":
        return scores
    if how == "standardise":
        spread = float(scores.std())
        return np.asarray((scores - scores.mean()) / (spread if spread > 0 else 1.0))
    scale = float(np.abs(scores).mean() if how == "mean" else np.abs(scores).max(initial=0))
    return np.asarray(scores / (scale if scale > 0 else 1.0))
