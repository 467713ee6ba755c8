"""Dependency analysis of a canonical model: one pass over the nodes, then one connected-components solve.

The result is keyed by names, so it holds for every clone of the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph.components import box_axis
from prunec.graph.constant import constant_channels
from prunec.graph.cost import node_macs
from prunec.graph.flow import Axes, Flow, Part, Pin, SplitPolicy, Statistic, Use
from prunec.graph.groups import Group, build_groups
from prunec.graph.rules import rule_for
from prunec.graph.rules.base import outputs_untracked, rank
from prunec.graph.rules.routing import follow_positions
from prunec.graph.shapes import dims
from prunec.graph.vanish import Vanishing, follow, owners
from prunec.graph.weights import is_weight, source

TIED_MIN_ELEMENTS = 1024
"""Smaller shared initializers are copied when their users are cut differently; larger ones stay tied."""


@dataclass(frozen=True)
class Consumer:
    """A data input that a node sums over. `channels` has one class id per position of `axis`."""

    node: str
    data_index: int
    axis: int
    channels: np.ndarray
    weight_index: int | None
    weight_axis: int | None
    zero_index: int | None = None
    """The input with the integer that stands for zero, where the data is quantised."""


@dataclass(frozen=True)
class Analysis:
    """Groups of a model and where their channels are. All arrays of class ids are int64."""

    groups: tuple[Group, ...]
    channel_count: int
    value_axes: dict[str, tuple[np.ndarray | None, ...]]
    use_axes: dict[tuple[str, int], tuple[np.ndarray | None, ...]]
    consumers: tuple[Consumer, ...]
    pins: tuple[Pin, ...]
    statistics: tuple[Statistic, ...] = ()
    """Statistics over channels that may be cut; their `ids` are class ids."""
    positions: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Integer values → class ids of the axis whose positions they number."""
    vanishing: Mapping[str, Vanishing] = field(default_factory=dict)
    """Values that go as a whole with an expert."""
    owners: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Nodes that are needed while all of these classes are alive; all others always are."""
    rows: tuple[np.ndarray, ...] = ()
    """Class ids along the last axis of blocks over several axes that stayed whole (only with `apart`)."""

    def alive(self, keeps: Mapping[str, np.ndarray]) -> np.ndarray:
        """Class mask from group masks. `keeps` maps a group id to a bool array of the group's size.

        Raises:
            PrunecError PC201: unknown group, wrong length, a pinned group, or nothing kept.
        """
        alive = np.ones(self.channel_count, bool)
        by_id = {group.id: group for group in self.groups}
        for group_id, keep in keeps.items():
            group = by_id.get(group_id)
            if group is None:
                raise PrunecError("PC201", "no such group", where=group_id, hint="prunec inspect MODEL lists them")
            mask = np.asarray(keep, bool)
            if mask.shape != (group.size,):
                raise PrunecError("PC201", f"the mask has {mask.size} entries, the group {group.size}", where=group_id)
            if group.pinned is not None and not mask.all():
                raise PrunecError("PC201", f"the group is pinned: {group.pinned.reason}", where=group_id)
            if not mask.any():
                raise PrunecError("PC201", "no channel is kept", where=group_id, hint="keep at least one")
            if int(mask.sum()) < (group.experts or 1):
                message = f"{mask.sum()} experts are kept, each token is given {group.experts}"
                raise PrunecError("PC201", message, where=group_id, hint=f"keep at least {group.experts}")
            alive[group.channels] = mask
        return alive

    def empty_axes(self, alive: np.ndarray) -> list[np.ndarray]:
        """Class ids of every axis on which nothing would be left (a cut must not empty any)."""
        arrays = [a for axes in [*self.value_axes.values(), *self.use_axes.values()] for a in axes if a is not None]
        return [a for a in arrays if not alive[a].any()]


def analyse(
    model: ir.Model,
    *,
    split: SplitPolicy = "outer",
    residual: bool = False,
    experts: bool = False,
    pin_outputs: bool = True,
    apart: bool = False,
) -> Analysis:
    """Find the coupled channel groups of a canonical model (see `passes.canonicalise`). The model is not changed.

    `split`: whether reshapes into heads are cut by whole heads ("outer") or by their width ("inner").
    `residual`: let means over channels (LayerNorm and its kin) run over the channels that are left: class C.
    `experts`: let softmax and top-k weigh the channels that are left: class C, whole experts behind a gate.
    `pin_outputs=False` asks what could be cut if the axes of the graph outputs were free.
    `apart`: what may be reordered, not cut (see `graph.orders`): the channels of every head are classes of their own.
    """
    flow = Flow(split=split, residual=residual, experts=experts, apart=apart)
    macs: dict[str, int] = {}
    for node in model.graph:
        _couple(node, flow)
        macs[node.name or ""] = node_macs(node)
    for output in model.graph.outputs if pin_outputs else ():
        for ids in (*flow.of(output), flow.positions.get(output.name or "")):
            flow.pin(ids, "PC102", output.name or "", f"is an axis of the graph output {output.name}")
    for output in model.graph.outputs:
        if (own := flow.vanishing.get(output.name or "")) is not None:
            flow.pin(own.ids(), "PC109", output.name or "", "needs every expert: nothing multiplies them by their gate")
    flow.settle_claims()
    _tie_shared(model, flow)
    owned = owners(model.graph, flow.vanishing)
    _join_experts(model, flow, owned)
    groups, labels = build_groups(flow, macs)
    groups = tuple(_with_constants(model, group) for group in groups)
    consumers = tuple(
        Consumer(r.node, r.data_index, r.axis, labels[r.ids], r.weight_index, r.weight_axis, r.zero_index)
        for r in flow.reductions
    )
    vanishing = {name: own.renumbered(labels) for name, own in flow.vanishing.items()}
    return Analysis(
        groups=groups,
        channel_count=int(labels.max()) + 1 if len(labels) else 0,
        value_axes={k: _solve_axes(axes, labels) for k, axes in flow.axes.items() if any(a is not None for a in axes)},
        use_axes={
            k: _solve_axes(axes, labels) for k, axes in flow.use_axes.items() if any(a is not None for a in axes)
        },
        consumers=consumers,
        pins=tuple(dict.fromkeys(pin for _, pin in flow.pins)),
        statistics=tuple(replace(s, ids=labels[s.ids]) for s in flow.statistics),
        positions={name: labels[ids] for name, ids in flow.positions.items()},
        vanishing=vanishing,
        owners={name: frozenset(labels[list(ids)].tolist()) for name, ids in owned.items()},
        rows=tuple(_rows(flow, labels)) if apart else (),
    )


def _rows(flow: Flow, labels: np.ndarray) -> Iterator[np.ndarray]:
    for block in flow.blocks:
        classes = labels[block]
        if box_axis(classes) is None:
            yield from classes.reshape(-1, classes.shape[-1])


def _solve_axes(axes: Sequence[np.ndarray | Part | None], labels: np.ndarray) -> tuple[np.ndarray | None, ...]:
    """Class ids per axis once the classes are known."""
    result: Axes = []
    for entry in axes:
        if isinstance(entry, Part):
            classes = labels[entry.ids]
            axis = box_axis(classes)
            if axis == entry.dim:
                result.append(np.moveaxis(classes, axis, 0).reshape(classes.shape[axis], -1)[:, 0])
            else:
                result.append(None)
        else:
            result.append(None if entry is None else labels[entry])
    return tuple(result)


def _couple(node: ir.Node, flow: Flow) -> None:
    """Apply a node's rule. No rule is asked about operands of which not even the number of axes is known."""
    if any(value is not None and rank(value) is None for value in node.inputs):
        flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
        outputs_untracked(node, flow)
    else:
        rule_for(node).couple(node, flow)
    if flow.experts:
        follow_positions(node, flow)
        _follow_experts(node, flow)


def _follow_experts(node: ir.Node, flow: Flow) -> None:
    """What a node makes of values that an expert decides about; where no cut could follow, the experts stay."""
    found = follow(node, flow.vanishing, flow.picked_axes)
    if isinstance(found, tuple):
        ids = Vanishing(found, "moot").ids()
        flow.pin(ids, "PC109", node, "mixes experts in a way that no cut can follow")
    elif found is not None:
        for output in node.outputs:
            flow.vanishing.setdefault(output.name or "", found)


def _join_experts(model: ir.Model, flow: Flow, owned: Mapping[str, frozenset[int]]) -> None:
    """The weights of nodes that one expert alone needs are members of its group, whole."""
    for node in model.graph if owned else ():
        channels = owned.get(node.name or "", ())
        for index, value in enumerate(node.inputs if len(channels) == 1 else ()):
            shape = dims(source(value)) if is_weight(value) and value is not None else None
            if shape and isinstance(shape[0], int):
                ids = np.full(shape[0], next(iter(channels)), np.int64)
                flow.uses.append(Use(source(value).name or "", node.name or "", index, 0, "carrier", ids))  # type: ignore[arg-type]


def _with_constants(model: ir.Model, group: Group) -> Group:
    is_constant = group.kind == "A" and constant_channels(model, group).any()
    return replace(group, kind="B") if is_constant else group


def _tie_shared(model: ir.Model, flow: Flow) -> None:
    """Keep large shared weights tied: cut every use alike, or not at all where one user cannot follow."""
    users: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.is_initializer():
                users[value.name or ""].append((node.name or "", index))
    for name, places in users.items():
        shape = dims(model.graph.initializers[name]) or ()
        size = np.prod([d for d in shape if isinstance(d, int)], dtype=np.int64)
        if len(places) < 2 or size < TIED_MIN_ELEMENTS or len(shape) < 2:
            continue
        all_axes = [flow.use_axes.get(place, [None] * len(shape)) for place in places]
        for per_use in zip(*all_axes, strict=True):
            tracked = [ids for ids in per_use if ids is not None]
            for other in tracked[1:]:
                flow.unite(tracked[0], other)
            if tracked and len(tracked) < len(per_use):
                flow.pin(tracked[0], "PC103", places[0][0], f"{name} is shared with a use that cannot be cut")
