"""Which channels may change places: a permutation of a coupled group leaves what the network computes as it is.

With π over channel classes, slot c of every axis gets what slot π(c) held: weights that make the channels, biases and
norms on them, and the weights that sum over them are reordered alike, and no node changes. That is exact (class A, up
to the order of floating-point sums) where

1. nothing pins the channel and no integer stands for it. Norms over the whole axis pin nothing: their statistic has no
   order. Graph outputs do (PC102);
2. c and π(c) are on the same axes equally often: parts that Split, Slice and Concat take apart stay apart, positions
   of a grouped convolution move in all groups at once, and each head keeps its own channels;
3. of a class with several positions the k-th goes to the k-th.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph.analysis import Analysis, analyse


@dataclass(frozen=True)
class Cell:
    """Channels of one group that may change places with each other; sorted int64 class ids."""

    group: str
    classes: np.ndarray


def analyse_orders(model: ir.Model) -> Analysis:
    """Groups as they matter for reordering: means over all channels pin nothing, heads are kept apart."""
    return analyse(model, residual=True, apart=True)


def cells(analysis: Analysis) -> list[Cell]:
    """All cells of two channels or more, in order of their first channel. `analysis` is one of `analyse_orders`."""
    arrays = [ids for axes in (analysis.value_axes, analysis.use_axes) for own in axes.values() for ids in own]
    distinct = {ids.tobytes(): ids for ids in (*arrays, *analysis.rows) if ids is not None}
    places: list[list[tuple[int, int]]] = [[] for _ in range(analysis.channel_count)]
    for number, ids in enumerate(distinct.values()):
        for channel, count in zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True):
            places[channel].append((number, count))
    numbered = set().union(*(ids.tolist() for ids in analysis.positions.values()), *analysis.owners.values())
    found: list[Cell] = []
    for group in analysis.groups:
        if group.pinned is not None or not numbered.isdisjoint(group.channels.tolist()):
            continue
        parts: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for channel in np.sort(group.channels).tolist():
            parts[tuple(places[channel])].append(channel)
        found += [Cell(group.id, np.array(own, np.int64)) for own in parts.values() if len(own) > 1]
    return sorted(found, key=lambda cell: int(cell.classes[0]))


def moved(ids: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Where every position of an axis takes its numbers from. `source` [classes] is π, `ids` the axis' class ids."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    by_class = np.argsort(ids, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    occurrence = np.empty(len(ids), np.int64)
    occurrence[by_class] = np.arange(len(ids)) - first[inverse[by_class]]
    start = dict(zip(ids[by_class][first].tolist(), first.tolist(), strict=True))
    wanted = source[ids]
    found: np.ndarray = by_class[np.array([start[c] for c in wanted.tolist()], np.int64) + occurrence]
    return found
