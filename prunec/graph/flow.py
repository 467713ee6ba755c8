"""Channel provenance: where every position of every cuttable axis comes from.

Each axis that may be cut carries an int64 array of channel ids, one per position (None: untracked). Operator rules
move these arrays from inputs to outputs and *unite* ids that must live or die together; `Flow` records both. The
unions are solved once at the end as connected components, so analysis is near-linear in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from prunec.graph.shapes import dims, is_constant

Ids = np.ndarray | None
Axes = list[Ids]
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


@dataclass
class Flow:
    """Collects what the rules say about one graph. `split` decides which axis of a split keeps the channels."""

    split: SplitPolicy = "outer"
    axes: dict[str, Axes] = field(default_factory=dict)
    use_axes: dict[tuple[str, int], Axes] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)
    pins: list[tuple[np.ndarray, Pin]] = field(default_factory=list)
    count: int = 0
    _edges: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    # -- reading ------------------------------------------------------------------------------------------------
    def of(self, value: ir.Value | None) -> Axes:
        """Ids of each axis of an activation (constants and unknown ranks are untracked)."""
        if value is None:
            return []
        known = self.axes.get(value.name or "")
        if known is not None:
            return list(known)
        return [None] * len(dims(value) or ())

    def tracked(self, value: ir.Value | None) -> bool:
        return any(ids is not None for ids in self.of(value))

    # -- writing ------------------------------------------------------------------------------------------------
    def set(self, value: ir.Value, axes: Sequence[Ids]) -> None:
        """State the ids of an output. An axis of length 1 is never tracked; the channel on it has to stay."""
        name = value.name or ""
        producer = value.producer()
        for ids in axes:
            if ids is not None and len(ids) == 1:
                self.pin(
                    ids,
                    "PC109",
                    producer if producer is not None else name,
                    f"is the only position of an axis of {name}",
                )
        self.axes[name] = [ids if ids is not None and len(ids) > 1 else None for ids in axes]

    def fresh(self, n: int) -> np.ndarray:
        ids = np.arange(self.count, self.count + n, dtype=np.int64)
        self.count += n
        return ids

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        a, b = np.broadcast_arrays(a, b)
        self._edges.append((a.ravel(), b.ravel()))

    def pin(self, ids: Ids, code: str, node: ir.Node | str, reason: str) -> None:
        if ids is not None:
            name = node if isinstance(node, str) else node.name or ""
            self.pins.append((np.unique(ids), Pin(code, name, reason)))

    def pin_inputs(self, node: ir.Node, code: str, reason: str) -> None:
        """Pin every tracked axis of every input; outputs stay untracked."""
        for value in node.inputs:
            for ids in self.of(value):
                self.pin(ids, code, node, reason)

    def use(self, node: ir.Node, index: int, axes: Sequence[Ids], role: Role | Sequence[Role]) -> None:
        """State how `node` uses the initializer at `index`: per axis ids, with one role or one role per axis."""
        value = node.inputs[index]
        assert value is not None and is_constant(value), f"{node.name}: input {index} is not a constant"
        roles: Sequence[Role] = [role] * len(axes) if isinstance(role, str) else role
        kept = [ids if ids is not None and len(ids) > 1 else None for ids in axes]
        self.use_axes[node.name or "", index] = kept
        for axis, (ids, axis_role) in enumerate(zip(kept, roles, strict=True)):
            if ids is not None:
                self.uses.append(Use(value.name or "", node.name or "", index, axis, axis_role, ids))

    def reduce(
        self, node: ir.Node, data_index: int, axis: int, ids: Ids, weight: tuple[int, int] | None = None
    ) -> None:
        """State that `node` sums over `axis` of its input; `weight` is the (input, axis) it sums with."""
        if ids is not None:
            index, weight_axis = weight if weight is not None else (None, None)
            self.reductions.append(Reduction(node.name or "", data_index, axis, ids, index, weight_axis))

    # -- the answer ---------------------------------------------------------------------------------------------
    def classes(self) -> tuple[int, np.ndarray]:
        """Number of classes, and the class of every id (numbered by first appearance, so the result is stable)."""
        if self.count == 0:
            return 0, np.zeros(0, np.int64)
        rows = np.concatenate([a for a, _ in self._edges] or [np.zeros(0, np.int64)])
        cols = np.concatenate([b for _, b in self._edges] or [np.zeros(0, np.int64)])
        graph = coo_matrix((np.ones(len(rows), np.int8), (rows, cols)), shape=(self.count, self.count))
        number, labels = connected_components(graph, directed=False)
        _, first = np.unique(labels, return_index=True)
        rank = np.empty(number, np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(number)
        return int(number), rank[labels]
