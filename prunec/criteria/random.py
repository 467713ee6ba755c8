"""Random scores: the baseline that a criterion has to beat.

Seeded per group by the group's first producing tensor, so that a group keeps its scores when others come or go.
"""

from __future__ import annotations

import zlib

import numpy as np

from prunec.criteria.base import Needs, ScoreContext
from prunec.graph import Group


class Random:
    """Uniform in [0, 1)."""

    name = "random"
    needs: frozenset[Needs] = frozenset()
    data_free = True

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size]."""
        producers = group.producers()
        key = producers[0].tensor if producers else group.id
        words = [context.seed, zlib.crc32(key.encode()), int(group.channels[0])]
        return np.random.default_rng(words).random(group.size)
