"""The parameters of a module after a cut: which positions stay, and their new values.

The cut and the compensation are about the canonical model, where batch norms are folded; the module has its own
parameters. Both are tied together by the nodes they share: a class of channels of the unfolded model dies with the
class at the same place of the folded one. Values that compensation changed go back through the fold,

    y = s (W x + b − μ) + β,   s = γ/√(σ²+ε):     W = W'/s,   β grows by what the folded bias grew,

and where s is (almost) zero the norm is made to pass its input on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis, analyse
from prunec.graph.rules.base import attribute, given
from prunec.graph.shapes import constant
from prunec.torch.provenance import Provenance

_SMALL_SCALE = 1e-6
"""Of the largest one: a batch norm that multiplies by less cannot be undone in float32."""


class NotInPlace(Exception):
    """The module's own parameters cannot take this cut; `reason` says why, `hint` what to write instead."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True)
class NewParameters:
    """`keeps`: parameter → positions that stay, per axis. `values`: the parameters that were changed, already cut.

    `biases`: weight → values of a bias that its layer does not have yet; `groups`: weight → groups of its layer;
    `counts`: (weight, channels of a group that it makes or uses, how many of them stay).
    """

    keeps: dict[str, tuple[np.ndarray, ...]]
    values: dict[str, np.ndarray]
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    counts: tuple[tuple[str, int, int], ...] = ()


def new_parameters(
    traced: Provenance, folded: Analysis, keeps: Mapping[str, np.ndarray], cut: ir.Model, final: ir.Model
) -> NewParameters:
    """`cut`, `final`: the sliced canonical model before and after compensation; `keeps`: masks of `folded`'s groups.

    Raises:
        NotInPlace: a weight that is not a parameter's would have to change, or a parameter would not stay an array.
    """
    writer = _Writer(traced, folded, folded.alive(keeps), cut, final)
    return replace(writer.result(), counts=tuple(writer.counts(folded, keeps)))


class _Writer:
    def __init__(self, traced: Provenance, folded: Analysis, alive: np.ndarray, cut: ir.Model, final: ir.Model) -> None:
        self.traced = traced
        self.analysis = analyse(traced.model)
        self.alive = carry_over(self.analysis, folded, alive)
        self.cut, self.final = ({node.name or "": node for node in model.graph} for model in (cut, final))
        self.nodes = {node.name or "": node for node in traced.model.graph}
        self.flat = np.full(traced.size, np.nan)
        self.biases: dict[str, np.ndarray] = {}

    def result(self) -> NewParameters:
        keeps = self.keeps()
        for name, node in self.final.items():
            if name in self.cut:
                self.write(node, self.cut[name])
        values: dict[str, np.ndarray] = {}
        for name, (start, shape) in self.traced.spans.items():
            whole = self.flat[start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape)
            written = whole[np.ix_(*keeps[name])]
            changed = ~np.isnan(written)
            if changed.any():
                values[name] = written
        return NewParameters(keeps, values, self.biases, self.groups())

    # -- which positions stay -----------------------------------------------------------------------------------
    def keeps(self) -> dict[str, tuple[np.ndarray, ...]]:
        lives, dies = np.zeros(self.traced.size, bool), np.zeros(self.traced.size, bool)
        for node in self.nodes.values():
            for index, value in enumerate(node.inputs):
                masks = self.masks(node, index)
                origin = self.traced.origins.get(value.name or "") if value is not None else None
                if origin is None:
                    is_made = value is not None and (value.name or "") not in self.traced.constants
                    if is_made and any(mask is not None and not mask.all() for mask in masks):
                        raise NotInPlace(f"{value.name if value else None} is cut, and is computed from parameters")
                    continue
                stays = np.ones(origin.shape, bool)
                for axis, mask in enumerate(masks):
                    if mask is not None:
                        stays &= mask.reshape([-1 if i == axis else 1 for i in range(origin.ndim)])
                lives[origin[stays]] = True
                dies[origin[~stays]] = True
        dies &= ~lives
        found = {}
        for name, (start, shape) in self.traced.spans.items():
            stays = ~dies[start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape)
            found[name] = _axes(name, stays)
        return found

    def masks(self, node: ir.Node, index: int) -> list[np.ndarray | None]:
        axes = self.analysis.use_axes.get((node.name or "", index), ())
        return [None if ids is None else self.alive[ids] for ids in axes]

    def kept(self, node: ir.Node, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and element numbers of a constant input of an unfolded node, after the cut."""
        value = node.inputs[index]
        array = constant(value)
        origin = self.traced.origins.get(value.name or "") if value is not None else None
        if array is None or origin is None:
            raise NotInPlace(f"{value.name if value else node.name} is computed from parameters")
        for axis, mask in enumerate(self.masks(node, index)):
            if mask is not None:
                array, origin = np.compress(mask, array, axis), np.compress(mask, origin, axis)
        return array.astype(np.float64), origin

    # -- new values ---------------------------------------------------------------------------------------------
    def write(self, final: ir.Node, cut: ir.Node) -> None:
        """Carry the constants of one node that compensation changed over to the parameters."""
        changed = {
            index: (_floats(constant(value)), _floats(constant(cut.inputs[index]) if given(cut, index) else None))
            for index, value in enumerate(final.inputs)
            if value is not None and value.is_initializer() and not _same(value, cut, index)
        }
        if not changed:
            return
        node = self.nodes.get(final.name or "")
        if node is None:
            raise NotInPlace(f"{final.name} exists only in the rewritten graph")
        add, norm = self.behind(node)
        for index, (new, old) in changed.items():
            assert new is not None
            if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and index == 2:
                self.shift(node, add, norm, new - (0 if old is None else old))
            elif norm is not None and index == 1:
                self.put(node, 1, new / self.scale(node, norm, new))
            else:
                self.put(node, index, new)

    def behind(self, node: ir.Node) -> tuple[ir.Node | None, ir.Node | None]:
        """The addition and the batch norm that were folded into this node."""
        add = norm = None
        value = node.outputs[0]
        for _ in range(2):
            uses = [use.node for use in value.uses()]
            if len(uses) != 1 or (uses[0].name or "") in self.final:
                break
            if uses[0].op_type == "Add" and norm is None:
                add = uses[0]
            elif uses[0].op_type == "BatchNormalization":
                norm = uses[0]
            value = uses[0].outputs[0]
        return add, norm

    def shift(self, node: ir.Node, add: ir.Node | None, norm: ir.Node | None, delta: np.ndarray) -> None:
        """Add to what the folded bias is made of."""
        delta = delta.reshape(-1)
        if norm is not None:
            beta, _ = self.current(norm, 2)
            self.put(norm, 2, beta + delta)
        elif add is not None:
            index = 0 if constant(add.inputs[0]) is not None else 1
            old, _ = self.current(add, index)
            self.put(add, index, old + delta.reshape(old.shape))
        elif given(node, 2) and self.traced.origins.get(node.inputs[2].name or "") is not None:  # type: ignore[union-attr]
            old, _ = self.current(node, 2)
            self.put(node, 2, old + delta.reshape(old.shape))
        else:
            self.biases[self.owner(node)] = delta

    def scale(self, node: ir.Node, norm: ir.Node, weight: np.ndarray) -> np.ndarray:
        """s of the norm, in the shape that divides `weight`; channels whose s is (almost) zero are given s = 1."""
        gamma, beta, mean, variance = (self.current(norm, i)[0] for i in range(1, 5))
        deviation = np.sqrt(variance + float(attribute(norm, "epsilon", 1e-5)))
        scale = gamma / deviation
        weak = np.abs(scale) < _SMALL_SCALE * np.abs(scale).max(initial=1e-30)
        if weak.any():
            bias = self.bias(node)
            folded = beta + scale * (bias - mean)
            self.put(norm, 1, np.where(weak, deviation, gamma))
            self.put(norm, 2, np.where(weak, folded - bias + mean, beta))
            scale = np.where(weak, 1.0, scale)
        groups = int(attribute(self.final[node.name or ""], "group", 1))
        if node.op_type == "ConvTranspose" and groups > 1:  # [C, M/g, …]: each group of rows has its own columns
            rows = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
            return np.asarray(rows.reshape(*rows.shape, *[1] * (weight.ndim - 2)))
        axis = 0 if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)) else 1
        return scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])

    def bias(self, node: ir.Node) -> np.ndarray:
        """Of a layer in front of a norm, after the cut; zeros that the exporter wrote are no parameter."""
        value = node.inputs[2] if given(node, 2) else None
        if value is None or value.name in self.traced.constants:
            return np.zeros(1)
        return self.current(node, 2)[0]

    def current(self, node: ir.Node, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A constant after the cut, with what was written into it so far."""
        values, origin = self.kept(node, index)
        written = self.flat[origin]
        return np.where(np.isnan(written), values, written), origin

    def put(self, node: ir.Node, index: int, values: np.ndarray) -> None:
        _, origin = self.kept(node, index)
        if origin.shape != values.shape:
            raise NotInPlace(f"{node.name} has another shape in the rewritten graph")
        before = self.flat[origin]
        clash = ~np.isnan(before) & (before != values)
        if clash.any() and node.op_type != "BatchNormalization":
            raise NotInPlace(f"{node.name} shares its weights with another layer and wants different values")
        self.flat[origin] = values

    # -- layers -------------------------------------------------------------------------------------------------
    def owner(self, node: ir.Node) -> str:
        """The parameter that a node's weight is."""
        for index in (1, 0):
            value = node.inputs[index]
            origin = self.traced.origins.get(value.name or "") if value is not None else None
            if origin is not None and origin.size:
                first = int(origin.ravel()[0])
                return next(n for n, (start, shape) in reversed(self.traced.spans.items()) if start <= first)
        raise NotInPlace(f"the weight of {node.name} is computed from parameters")

    def counts(self, folded: Analysis, keeps: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int, int]]:
        for group in folded.groups:
            for member in group.members if group.id in keeps else ():
                if member.role != "carrier" and member.node in self.nodes:
                    yield self.owner(self.nodes[member.node]), group.size, int(keeps[group.id].sum())

    def groups(self) -> dict[str, int]:
        found = {}
        for name, node in self.nodes.items():
            if node.op_type in ("Conv", "ConvTranspose") and name in self.final:
                before, after = (int(attribute(n, "group", 1)) for n in (node, self.final[name]))
                if before != after:
                    found[self.owner(node)] = after
        return found


def carry_over(analysis: Analysis, folded: Analysis, alive: np.ndarray) -> np.ndarray:
    """Class mask for the unfolded model: what is dead at a place both models have is dead."""
    found = np.ones(analysis.channel_count, bool)
    for ours, theirs in shared_classes(analysis, folded):
        found[ours[~alive[theirs]]] = False
    return found


def shared_classes(analysis: Analysis, folded: Analysis) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Classes at every place that both models have: of the unfolded one, and of the folded one."""
    for place, axes in analysis.use_axes.items():
        for ids, other in zip(axes, folded.use_axes.get(place, ()), strict=False):
            if ids is not None and other is not None and len(ids) == len(other):
                yield ids, other


def _axes(name: str, stays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Positions per axis whose product is exactly what stays."""
    kept = []
    for axis in range(stays.ndim):
        others = tuple(i for i in range(stays.ndim) if i != axis)
        kept.append(np.flatnonzero(stays.any(axis=others) if others else stays))
    if int(np.prod([len(k) for k in kept], dtype=np.int64)) != int(stays.sum()):
        raise NotInPlace(f"what stays of {name} is no array of rows and columns")
    return tuple(kept)


def _floats(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else array.astype(np.float64)


def _same(value: ir.Value, cut: ir.Node, index: int) -> bool:
    before = constant(cut.inputs[index]) if given(cut, index) else None
    now = constant(value)
    return before is not None and now is not None and before.shape == now.shape and bool((before == now).all())
