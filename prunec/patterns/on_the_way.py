"""Patterns that come little by little: what a layer has when a share of its final zeros is there."""

from __future__ import annotations

from prunec.patterns.base import Pattern
from prunec.patterns.nm import NM
from prunec.patterns.parse import parse


def on_the_way(pattern: Pattern, level: float, share: float) -> tuple[Pattern, float] | None:
    """Pattern and level with `share` of the zeros there will be in the end; None: no zeros yet.

    N:M goes by way of fewer zeros in every M; other patterns that imply their level have no way and start at 1.
    """
    if pattern.fixed_level is None:
        return (pattern, level * share) if share > 0 else None
    if isinstance(pattern, NM):
        keep = pattern.m - round((pattern.m - pattern.n) * share)
        if keep == pattern.m:
            return None
        found = parse(f"{keep}:{pattern.m}")
        return found, found.level(None)
    return (pattern, level) if share >= 1 else None
