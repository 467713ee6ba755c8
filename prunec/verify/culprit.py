"""Which group makes a cut wrong: halve the set of cut groups for as long as one half alone is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from prunec.graph import Analysis, Group


def cut_groups(analysis: Analysis, alive: np.ndarray) -> list[Group]:
    """Groups that really lose channels."""
    return [group for group in analysis.groups if not alive[group.channels].all()]


def only(analysis: Analysis, alive: np.ndarray, groups: Iterable[str]) -> np.ndarray:
    """`alive` for the named groups, everything alive elsewhere."""
    wanted = set(groups)
    result = np.ones_like(alive)
    for group in analysis.groups:
        if group.id in wanted:
            result[group.channels] = alive[group.channels]
    return result


def find_culprit(groups: Sequence[str], is_wrong: Callable[[Sequence[str]], bool]) -> list[str]:
    """The smallest wrong set that halving finds: one group, or several that are wrong only together."""
    suspects = list(groups)
    while len(suspects) > 1:
        half = len(suspects) // 2
        wrong = next((part for part in (suspects[:half], suspects[half:]) if is_wrong(part)), None)
        if wrong is None:
            break
        suspects = wrong
    return suspects
