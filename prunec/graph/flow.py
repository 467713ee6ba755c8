"""Channel provenance: where every position of every cuttable axis comes from.

Each axis that may be cut carries an int64 array of channel ids, one per position (None: untracked). Operator rules
move these arrays from inputs to outputs and *unite* ids that must live or die together; `Flow` records both. The
unions are solved once at the end as connected components, so analysis is near-linear in the graph.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from prunec.graph.components import box_axis, components
from prunec.graph.shapes import dims, is_constant, length
from prunec.graph.vanish import Vanishing
from prunec.graph.weights import QUANTISERS, block_size, chain, is_weight, permutation, quantised_axis, source

STATISTIC = "PC105"
"""Why channels under a mean, variance or maximum over them are pinned."""

Ids = np.ndarray | None
Axes = list[Ids]


@dataclass(frozen=True, eq=False)
class Part:
    """One axis of a joint block: `ids` (n-D) covers several axes of a tensor, this one is its dimension `dim`.

    A reshape that splits channels, (3·h·d) → (3, h, d), does not say along which axis they may be cut. Operators that
    only move positions keep the block whole; the first one that treats its axes differently resolves it to one axis.
    """

    ids: np.ndarray
    dim: int


RawAxes = list["np.ndarray | Part | None"]


Role = Literal["producer", "consumer", "carrier"]
SplitPolicy = Literal["outer", "inner"]


@dataclass(frozen=True)
class Pin:
    """Why an axis may not be cut: a code, the node that says so, and the reason in words."""

    code: str
    node: str
    reason: str


@dataclass(frozen=True)
class Use:
    """One axis of one initializer as one node uses it; `ids` has the length of the axis."""

    tensor: str
    node: str
    input_index: int
    axis: int
    role: Role
    ids: np.ndarray


@dataclass(frozen=True)
class Reduction:
    """A data input whose channels a node sums over: dead channels contribute exactly nothing there."""

    node: str
    data_index: int
    axis: int
    ids: np.ndarray
    weight_index: int | None = None
    weight_axis: int | None = None
    zero_index: int | None = None
    """The input that says which integer stands for zero; None: 0 does."""


@dataclass(frozen=True)
class Statistic:
    """A statistic over `axis` of a data input whose channels may be cut: it then runs over those left (class C)."""

    node: str
    data_index: int
    axis: int
    ids: np.ndarray


@dataclass
class Flow:
    """Collects what the rules say about one graph. `split` decides which axis of a split keeps the channels.

    With `residual`, a mean over channels does not pin them; it is recorded as a `Statistic`. With `experts`, so are a
    softmax and a top-k. With `apart`, products of heads keep the channels of every head apart (`rules.heads`): right
    for reordering them, not for cutting.
    """

    split: SplitPolicy = "outer"
    residual: bool = False
    experts: bool = False
    apart: bool = False
    axes: dict[str, RawAxes] = field(default_factory=dict)
    use_axes: dict[tuple[str, int], Axes] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)
    experts_left: list[tuple[np.ndarray, int]] = field(default_factory=list)
    """Channels that are whole experts, and how many of them have to stay."""
    positions: dict[str, np.ndarray] = field(default_factory=dict)
    """Integer values that number the positions of an axis (what TopK answers): the ids of that axis."""
    vanishing: dict[str, Vanishing] = field(default_factory=dict)
    """Values that a single channel decides about as a whole."""
    picked_axes: dict[frozenset[int], None] = field(default_factory=dict)
    pins: list[tuple[np.ndarray, Pin]] = field(default_factory=list)
    count: int = 0
    blocks: list[np.ndarray] = field(default_factory=list)
    _fixed: list[tuple[np.ndarray, int]] = field(default_factory=list)
    _fixed_dims: dict[int, set[int]] = field(default_factory=dict)
    """`_fixed` by the identity of the block, which `_fixed` keeps alive."""
    _free: list[tuple[int, int]] = field(default_factory=list)
    _edges: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _claims: dict[ir.Value, set[tuple[str, int]]] = field(default_factory=dict)

    # -- reading ------------------------------------------------------------------------------------------------
    def raw(self, value: ir.Value | None) -> RawAxes:
        """Ids or joint parts of each axis of an activation (constants and unknown ranks are untracked)."""
        if value is None:
            return []
        known = self.axes.get(value.name or "")
        if known is not None:
            return list(known)
        return [None] * len(dims(value) or ())

    def of(self, value: ir.Value | None) -> Axes:
        """Ids of each axis of an activation; joint blocks are resolved to one axis each."""
        result: Axes = []
        for entry in self.raw(value):
            if isinstance(entry, Part):
                result.append(self._resolve(entry))
            else:
                result.append(entry)
        return result

    def _resolve(self, part: Part) -> Ids:
        """Ids of one axis of a block, all of whose other axes then follow: unites along them."""
        fixed = self._fixed_dims.get(id(part.ids), set())
        allowed = [dim for dim in range(part.ids.ndim) if dim not in fixed] or [0]
        chosen = allowed[0] if self.split == "outer" else allowed[-1]
        if part.dim != chosen:
            return None
        rows = np.moveaxis(part.ids, chosen, 0).reshape(part.ids.shape[chosen], -1)
        self.unite(rows[:, :1], rows)
        return rows[:, 0]

    def tracked(self, value: ir.Value | None) -> bool:
        return any(entry is not None for entry in self.raw(value))

    # -- writing ------------------------------------------------------------------------------------------------
    def set(self, value: ir.Value, axes: Sequence[np.ndarray | Part | None]) -> None:
        """State the ids of an output. An axis of length 1 is never tracked; the channel on it has to stay."""
        name = value.name or ""
        producer = value.producer()
        for ids in axes:
            if isinstance(ids, np.ndarray) and len(ids) == 1:
                self.pick(producer, value, ids, f"is the only position of an axis of {name}")
        self.axes[name] = [None if isinstance(ids, np.ndarray) and len(ids) == 1 else ids for ids in axes]

    def fresh(self, n: int) -> np.ndarray:
        ids = np.arange(self.count, self.count + n, dtype=np.int64)
        self.count += n
        return ids

    def free(self, n: int) -> np.ndarray:
        """Fresh ids that no weight makes (a broadcast axis): whatever they meet decides about them."""
        ids = self.fresh(n)
        self._free.append((int(ids[0]), int(ids[0]) + n))
        return ids

    def is_free(self, ids: np.ndarray) -> bool:
        place = bisect_right(self._free, (int(ids[0]), self.count + 1)) - 1  # ranges in order of their start
        return place >= 0 and ids[0] < self._free[place][1]

    def joint(self, grid: np.ndarray) -> RawAxes:
        """Axes for an n-D grid of ids that a reshape made: those along which nothing varies are untracked."""
        varying = [d for d in range(grid.ndim) if not (grid == np.take(grid, [0], axis=d)).all()]
        if not varying:
            varying = [0]
            self.unite(grid.ravel()[:1], grid.ravel())
        index = tuple(slice(None) if d in varying else 0 for d in range(grid.ndim))
        block = grid[index]
        result: RawAxes = [None] * grid.ndim
        if len(varying) == 1:
            result[varying[0]] = block
            return result
        self.blocks.append(block)
        for dim, axis in enumerate(varying):
            result[axis] = Part(block, dim)
        return result

    def take(self, axes: RawAxes, along: int, index: np.ndarray | slice | int) -> RawAxes:
        """Axes after picking positions on one axis; a single integer removes the axis.

        An axis of a joint block that single positions are picked from cannot be the one that channels go along.
        """
        entry = axes[along]
        result = list(axes)
        if isinstance(entry, Part):
            ids = np.moveaxis(entry.ids, entry.dim, 0)[index]
            single = isinstance(index, int) or len(ids) == 1
            if single:
                self._fixed.append((entry.ids, entry.dim))
                self._fixed_dims.setdefault(id(entry.ids), set()).add(entry.dim)
                ids = ids if isinstance(index, int) else ids[0]
            else:
                ids = np.moveaxis(ids, 0, entry.dim)
            for axis, other in enumerate(axes):
                if isinstance(other, Part) and other.ids is entry.ids:
                    dim = other.dim - (single and other.dim > entry.dim)
                    result[axis] = Part(ids, dim) if ids.ndim > 1 else ids
            if single:
                result[along] = None
        elif entry is not None:
            result[along] = entry[index]
        if isinstance(index, int):
            del result[along]
        return result

    def pick(self, node: ir.Node | None, value: ir.Value, ids: np.ndarray, reason: str) -> None:
        """State that `value` has a single channel left on an axis: it has to stay, or decides about all of `value`.

        The latter with `experts`; then the node that picks is a consumer of the axis.
        """
        if self.experts and node is not None and node.op_type in ("Split", "Slice", "Gather"):
            for axis, own in enumerate(self.of(node.inputs[0])):
                if own is not None and ids[0] in own:
                    if not any(r.node == node.name and r.axis == axis for r in self.reductions[-1:]):
                        self.reduce(node, 0, axis, own)
                    self.decide(value, int(ids[0]), own)
                    return
        self.pin(ids, "PC109", node if node is not None else value.name or "", reason)

    def decide(self, value: ir.Value, channel: int, axis: np.ndarray) -> None:
        """State that `value` is zero as a whole when `channel`, one of the ids of an axis of experts, is dead."""
        self.vanishing[value.name or ""] = Vanishing((frozenset((channel,)),), "zero")
        self.picked_axes[frozenset(axis.tolist())] = None
        self.experts_left.append((axis, 1))

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        a, b = np.broadcast_arrays(a, b)
        self._edges.append((a.ravel(), b.ravel()))

    def pin(self, ids: Ids, code: str, node: ir.Node | str, reason: str) -> None:
        if ids is not None:
            name = node if isinstance(node, str) else node.name or ""
            self.pins.append((ids, Pin(code, name, reason)))

    def pin_inputs(self, node: ir.Node, code: str, reason: str) -> None:
        """Pin every tracked axis of every input; outputs stay untracked."""
        for value in node.inputs:
            for ids in self.of(value):
                self.pin(ids, code, node, reason)

    def use(self, node: ir.Node, index: int, axes: Sequence[Ids], role: Role | Sequence[Role]) -> None:
        """State how `node` uses the weight at `index`: per axis ids, with one role or one role per axis.

        A weight that is quantised, cast or transposed on its way hands the ids on to its constant.
        """
        value = node.inputs[index]
        assert value is not None and is_weight(value), f"{node.name}: input {index} is not a constant"
        roles: list[Role] = [role] * len(axes) if isinstance(role, str) else list(role)
        kept: Axes = [ids if ids is not None and len(ids) > 1 else None for ids in axes]
        reader, place = node, index
        for made_by in chain(value):
            self._claim(made_by.outputs[0], (reader.name or "", place), kept)
            if made_by.op_type == "Transpose":
                order = permutation(made_by)
                kept = [kept[order.index(axis)] for axis in range(len(order))]
                roles = [roles[order.index(axis)] for axis in range(len(order))]
            elif made_by.op_type in QUANTISERS:
                kept = self.along_scales(made_by, kept)
            reader, place = made_by, 0
        known = self.use_axes.get((reader.name or "", place))
        if known is not None and reader is not node:
            self._same(node, known, kept)
        self.use_axes[reader.name or "", place] = kept
        tensor = source(value).name or ""
        for axis, (ids, axis_role) in enumerate(zip(kept, roles, strict=True)):
            if ids is not None:
                self.uses.append(Use(tensor, node.name or "", index, axis, axis_role, ids))

    def along_scales(self, node: ir.Node, axes: Axes) -> Axes:
        """Let the scales and zero points of a (de)quantiser follow the axes of its data; returns those axes.

        Positions that share a block go together. Parameters computed at run time pin the axis they run along.
        """
        along = quantised_axis(node)
        block = block_size(node)
        for index in (1, 2):
            value = node.inputs[index] if index < len(node.inputs) else None
            rank = 0 if value is None or value.shape is None else len(value.shape)
            if value is None or rank == 0 or (rank == 1 and length(value, 0) == 1):
                continue
            ids = axes[along]
            if ids is not None and rank > 1:
                rows = ids.reshape(-1, block)
                self.unite(rows[:, :1], rows)
                ids = rows[:, 0]
            if not is_constant(value):
                self.pin(ids, "PC106", node, "has scales that are computed at run time")
                continue
            own = [ids] if rank == 1 else [ids if a == along else other for a, other in enumerate(axes)]
            self.use_axes[node.name or "", index] = [i if i is not None and len(i) > 1 else None for i in own]
            for axis, along_axis in enumerate(own):
                if along_axis is not None and len(along_axis) > 1:
                    self.uses.append(Use(value.name or "", node.name or "", index, axis, "carrier", along_axis))
        return axes

    def _claim(self, value: ir.Value, by: tuple[str, int], axes: Axes) -> None:
        """`by` asks for the axes of a weight that a node makes; all its readers have to ask for the same."""
        readers = self._claims.setdefault(value, set())
        if readers:
            self._same(by[0], self.axes[value.name or ""], axes)
        readers.add(by)
        self.axes[value.name or ""] = [*axes]

    def _same(self, where: ir.Node | str, known: Sequence[np.ndarray | Part | None], axes: Axes) -> None:
        for old, new in zip(known, axes, strict=True):
            assert not isinstance(old, Part)
            if old is not None and new is not None:
                self.unite(old, new)
            for ids, other in ((old, new), (new, old)):
                if other is None:
                    self.pin(ids, "PC103", where, "shares a weight with a use that cannot be cut")

    def settle_claims(self) -> None:
        """Pin the weights that some node makes and not all readers can follow. Call once, after the last rule."""
        for value, readers in self._claims.items():
            users = {(use.node.name or "", use.idx) for use in value.uses()}
            if users != readers or value.is_graph_output():
                other = next((name for name, _ in sorted(users - readers)), value.name or "")
                for ids in self.axes[value.name or ""]:
                    assert not isinstance(ids, Part)
                    self.pin(ids, "PC103", other, f"reads {value.name}, a shared weight, whole")

    def reduce(
        self,
        node: ir.Node,
        data_index: int,
        axis: int,
        ids: Ids,
        weight: tuple[int, int] | None = None,
        zero_index: int | None = None,
    ) -> None:
        """State that `node` sums over `axis` of its input; `weight` is the (input, axis) it sums with."""
        if ids is not None:
            index, weight_axis = weight if weight is not None else (None, None)
            self.reductions.append(Reduction(node.name or "", data_index, axis, ids, index, weight_axis, zero_index))

    def statistic(self, node: ir.Node, data_index: int, axis: int, ids: Ids, reason: str) -> None:
        """State that `node` takes a mean over `axis` of its input: recorded with `residual`, else that pins it."""
        if ids is not None and self.residual:
            self.statistics.append(Statistic(node.name or "", data_index, axis, ids))
        else:
            self.pin(ids, STATISTIC, node, reason)

    def rank(self, node: ir.Node, data_index: int, axis: int, ids: Ids, reason: str, least: int = 1) -> None:
        """State that `node` weighs the positions of `axis` against each other, of which at least `least` stay.

        Recorded with `experts`, else that pins them.
        """
        if ids is not None and self.experts:
            self.statistics.append(Statistic(node.name or "", data_index, axis, ids))
            self.experts_left.append((ids, least))
        else:
            self.pin(ids, STATISTIC, node, reason)

    # -- the answer ---------------------------------------------------------------------------------------------
    def classes(self) -> tuple[int, np.ndarray]:
        """Number of classes, and the class of every id (numbered by first appearance, so the result is stable).

        Every block that a reshape made must stay a box when channels go: one that no rule resolved is resolved here,
        unless channels are only to be reordered (`apart`).
        """
        number, labels = components(self.count, self._edges)
        while not self.apart and (ragged := [block for block in self.blocks if box_axis(labels[block]) is None]):
            for block in ragged:
                for dim in range(block.ndim):
                    self._resolve(Part(block, dim))
            number, labels = components(self.count, self._edges)
        for block, dim in self._fixed:
            if box_axis(labels[block]) == dim and len(np.unique(labels[block])) > 1:
                self.pin(block.ravel(), "PC109", "", "single positions of a split are picked")
        return number, labels
