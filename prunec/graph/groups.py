"""Coupled channel groups, read off the solved flow.

A channel *class* is one prunable unit: all positions of all tensors that must live or die together. A *group* is the
set of classes that the same producing axes make (and that are pinned for the same reason, or not at all): it is what
a user sees, scores are compared in, and ratios are given for.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunec.graph.flow import STATISTIC, Flow, Pin, Role, Use

Kind = Literal["A", "B", "C"]


@dataclass(frozen=True)
class Member:
    """One axis of one initializer use: its positions `places` are the group-local `channels`, of `length` in all.

    A concatenation of many layers has a member in each of their groups: only its own positions are kept.
    """

    tensor: str
    node: str
    input_index: int
    axis: int
    role: Role
    length: int
    places: np.ndarray
    channels: np.ndarray

    @property
    def index(self) -> np.ndarray:
        """int64 [length]: the group-local channel of every position, -1 if another group's."""
        index = np.full(self.length, -1, np.int64)
        index[self.places] = self.channels
        return index


@dataclass(frozen=True)
class Group:
    """One coupled group; `channels` are its class ids.

    Kind A: the cut is exact. B: so it is, and some channels are constants that fold into biases (`graph.constant`).
    C: a statistic runs over the channels; they are pinned, unless the analysis was told to let it run over those left.

    `experts`: the channels are whole experts, of which at least so many have to stay; None: they are no experts.
    """

    id: str
    size: int
    kind: Kind
    channels: np.ndarray
    members: tuple[Member, ...]
    pinned: Pin | None
    cost_share: float
    experts: int | None = None

    def producers(self) -> tuple[Member, ...]:
        return tuple(m for m in self.members if m.role == "producer")


def first_pins(flow: Flow, number: int, labels: np.ndarray) -> tuple[np.ndarray, list[Pin]]:
    """Index of the first pin of every class (-1: free), and the pins."""
    pins = [pin for _, pin in flow.pins]
    first = np.full(number, -1, np.int64)
    for i in range(len(pins) - 1, -1, -1):
        first[labels[flow.pins[i][0]]] = i
    return first, pins


def build_groups(flow: Flow, macs: dict[str, int]) -> tuple[tuple[Group, ...], np.ndarray]:
    """Groups in order of their first channel, and the class of every id. `macs` maps node name to its cost."""
    number, labels = flow.classes()
    first_pin, pins = first_pins(flow, number, labels)
    by_class = _producers_of(flow.uses, labels, number)
    keys: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for channel in range(number):
        if by_class[channel]:
            pin = pins[first_pin[channel]] if first_pin[channel] >= 0 else None
            keys[(by_class[channel], pin)].append(channel)
    members = _members(flow.uses, labels, number, keys)
    averaged = np.zeros(number, bool)
    for statistic in flow.statistics:
        averaged[labels[statistic.ids]] = True
    stay = np.zeros(number, np.int64)
    for ids, least in flow.experts_left:
        stay[labels[ids]] = np.maximum(stay[labels[ids]], least)
    total = sum(macs.values()) or 1
    groups: list[Group] = []
    for i, ((_, pin), channels) in enumerate(keys.items()):
        assert pin is None or isinstance(pin, Pin)
        own = tuple(members[i])
        cost = sum(macs.get(m.node, 0) * len(m.places) / max(m.length, 1) for m in own if m.role == "producer")
        kind: Kind = "C" if averaged[channels].any() or (pin is not None and pin.code == STATISTIC) else "A"
        experts = min(int(stay[channels].max()), len(channels)) or None
        groups.append(Group(f"g{i}", len(channels), kind, np.array(channels), own, pin, cost / total, experts))
    return tuple(groups), labels


def _producers_of(uses: list[Use], labels: np.ndarray, number: int) -> list[tuple[int, ...]]:
    """Per class, the indices of the producing uses it appears in."""
    rows: list[np.ndarray] = []
    cols: list[np.ndarray] = []
    for i, use in enumerate(uses):
        if use.role == "producer":
            classes = np.unique(labels[use.ids])
            rows.append(classes)
            cols.append(np.full(len(classes), i))
    found: list[list[int]] = [[] for _ in range(number)]
    if rows:
        for channel, producer in zip(np.concatenate(rows).tolist(), np.concatenate(cols).tolist(), strict=True):
            found[channel].append(producer)
    return [tuple(f) for f in found]


def _members(
    uses: list[Use], labels: np.ndarray, number: int, keys: dict[tuple[object, ...], list[int]]
) -> list[list[Member]]:
    group_of = np.full(number, -1, np.int64)
    local = np.full(number, -1, np.int64)
    for i, channels in enumerate(keys.values()):
        group_of[channels] = i
        local[channels] = np.arange(len(channels))
    members: list[list[Member]] = [[] for _ in keys]
    for use in uses:
        classes = labels[use.ids]
        owners = group_of[classes]
        order = np.argsort(owners, kind="stable")
        starts = np.flatnonzero(np.diff(owners[order], prepend=-2))
        for places in np.split(order, starts[1:]):
            group = int(owners[places[0]])
            if group >= 0:
                own = (use.tensor, use.node, use.input_index, use.axis, use.role, len(classes))
                members[group].append(Member(*own, places, local[classes[places]]))
    return members
