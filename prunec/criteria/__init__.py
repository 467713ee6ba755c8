"""Importance criteria, one file each: statistics in, one score per channel out."""

from prunec.catalog import criteria
from prunec.criteria.base import Columns, Criterion, Needs, ScoreContext, score_groups


def create(name: str) -> Criterion:
    """The criterion called `name`.

    Raises:
        PrunecError PC203: there is none; the message lists them.
    """
    made: Criterion = criteria.load(name)()
    return made


__all__ = ["Columns", "Criterion", "Needs", "ScoreContext", "create", "score_groups"]
