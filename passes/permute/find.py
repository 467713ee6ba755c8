"""The order of every group that lets its sparse layers keep the most saliency.

Σ over layers of the share of Σ w²·E[x²] that the pattern keeps; each layer counts alike, however large its numbers are.
Groups are ordered one after the other, each on what those before it left: where blocks have both rows and columns, the
order of a layer's inputs and that of its outputs depend on each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from prunec.graph import Analysis
from prunec.graph.orders import cells
from prunec.passes.permute.layers import HeldLayer
from prunec.passes.solve.permutation import search

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Found:
    """A group's order. `classes` int64, `source` what each of them takes its numbers from.

    `layers`: names of the sparse layers it touches. `kept_before`, `kept_after`: their kept saliency, a mean share.
    """

    group: str
    classes: np.ndarray
    source: np.ndarray
    layers: tuple[str, ...]
    kept_before: float
    kept_after: float


def find_orders(
    layers: Sequence[HeldLayer],
    orders: Analysis,
    *,
    gone: Collection[int] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Found]:
    """Orders that keep more than the one that is there, in order of the groups. `gone`: classes that are cut."""
    source = np.arange(orders.channel_count)
    by_group: dict[str, list[np.ndarray]] = defaultdict(list)
    for cell in cells(orders):
        classes = cell.classes[~np.isin(cell.classes, np.array(sorted(gone), np.int64))]
        if len(classes) > 1:
            by_group[cell.group].append(classes)
    found: list[Found] = []
    for number, (group, parts) in enumerate(by_group.items()):
        if progress is not None:
            progress(number, len(by_group), group)
        touched = [layer for layer in layers if _touches(layer, np.concatenate(parts))]
        trial = source.copy()
        for classes in parts:
            sides = [side for layer in touched for side in layer.sides(classes, trial)]
            if sides:
                trial[classes] = trial[classes][search(sides, seed + int(classes[0]))]
        if (trial == source).all():
            continue
        before, after = (float(np.mean([layer.kept(s) for layer in touched])) for s in (source, trial))
        if after > before:
            source, classes = trial, np.sort(np.concatenate(parts))
            names = tuple(layer.name for layer in touched)
            found.append(Found(group, classes, source[classes], names, before, after))
    return found


def _touches(layer: HeldLayer, classes: np.ndarray) -> bool:
    """Whether their order can matter to it: that of outputs does only where a pattern spans several."""
    sides = (layer.ins, layer.outs if layer.wanted.pattern.rows > 1 else None)
    return any(ids is not None and bool(np.isin(ids, classes).any()) for ids in sides)
