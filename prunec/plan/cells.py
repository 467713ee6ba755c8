"""Parts of a group that the graph sees apart.

Two channels are in one cell when they are on the same weight axes. Mostly a group is one cell; where layers use
different slices of it (Split, Slice, a partial Concat), each slice is cut, floored and rounded by itself, so that no
slice runs empty and every slice has a width the target likes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunec.graph import Analysis, Group


@dataclass(frozen=True)
class Cell:
    """`local`: sorted int64 group-local channels."""

    group: str
    local: np.ndarray

    @property
    def size(self) -> int:
        return len(self.local)


def split_cells(analysis: Analysis, groups: Sequence[Group]) -> list[Cell]:
    """Cells of `groups`, in order of their first channel."""
    axes = {ids.tobytes(): ids for use in analysis.use_axes.values() for ids in use if ids is not None}
    axes.update({c.channels.tobytes(): c.channels for c in analysis.consumers})
    on_axes: list[list[int]] = [[] for _ in range(analysis.channel_count)]
    for number, ids in enumerate(axes.values()):
        for channel in np.unique(ids).tolist():
            on_axes[channel].append(number)
    cells: list[Cell] = []
    for group in groups:
        parts: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for local, channel in enumerate(group.channels.tolist()):
            parts[tuple(on_axes[channel])].append(local)
        cells.extend(Cell(group.id, np.array(local, np.int64)) for local in parts.values())
    return cells
