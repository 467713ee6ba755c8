"""Operators that only move positions along an axis: Transpose, Concat, Split, Slice, Gather, Pad."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.graph.flow import Axes, Flow, Ids, Role
from prunec.graph.rules.base import KeepsAttributes, attribute, given, ints, outputs_untracked
from prunec.graph.rules.cut import Cut
from prunec.graph.rules.elementwise import merge_axis
from prunec.graph.rules.routing import pick_experts
from prunec.graph.shapes import constant, dims, is_constant, length
from prunec.graph.weights import is_weight, permutation


class Transpose(KeepsAttributes):
    """Permutes the arrays. A transposed constant (a tied head) is a weight that two axes can follow."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        data = node.inputs[0]
        axes = flow.raw(data)
        order = permutation(node)
        if is_constant(data):
            own: Axes = [flow.fresh(int(n)) for n in dims(data) or ()]  # type: ignore[arg-type]
            roles: list[Role] = ["producer" if axis == order[-1] else "carrier" for axis in range(len(own))]
            flow.use(node, 0, own, roles)
            axes = [*own]
        flow.set(node.outputs[0], [axes[p] for p in order])


class Concat(KeepsAttributes):
    """Arrays are concatenated along the axis; a part that cannot be cut takes its place as pinned ids."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        concat(node, flow, range(len(node.inputs)))


def concat(node: ir.Node, flow: Flow, indices: Sequence[int]) -> None:
    """Join the inputs at `indices` along the node's axis."""
    values = [node.inputs[i] for i in indices]
    n = len(dims(node.outputs[0]) or ())
    if n == 0 or any(len(dims(v) or ()) != n for v in values):
        flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
        return outputs_untracked(node, flow)
    along = int(attribute(node, "axis", 0)) % n
    result: Axes = [None if axis == along else merge_axis(node, flow, axis - n, values) for axis in range(n)]
    for index, value in zip(indices, values, strict=True):
        if is_weight(value):
            own = [ids if ids is not None and length(value, a) == len(ids) else None for a, ids in enumerate(result)]
            flow.use(node, index, own, "carrier")
    result[along] = _along(node, flow, along, values)
    return flow.set(node.outputs[0], result)


def _along(node: ir.Node, flow: Flow, axis: int, values: Sequence[ir.Value | None]) -> Ids:
    parts = [None if is_weight(v) else flow.of(v)[axis] for v in values]
    if all(part is None for part in parts):
        return None
    joined: list[np.ndarray] = []
    for value, part in zip(values, parts, strict=True):
        n = length(value, axis)
        if n is None:
            for ids in parts:
                flow.pin(ids, "PC104", node, "is joined with a part of unknown length")
            return None
        if part is None:
            part = flow.fresh(n)
            flow.pin(part, "PC103", node, f"comes from {value.name if value else '?'}, which cannot be cut")
        joined.append(part)
    return np.concatenate(joined)


class Split:
    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.raw(node.inputs[0])
        if not axes:
            return outputs_untracked(node, flow)
        along = int(attribute(node, "axis", 0)) % len(axes)
        sizes = [length(output, along) for output in node.outputs]
        total = length(node.inputs[0], along)
        if axes[along] is not None and (None in sizes or sum(s or 0 for s in sizes) != total):
            axes = [*flow.of(node.inputs[0])]
            flow.pin(flow.of(node.inputs[0])[along], "PC104", node, "the sizes of the parts are computed at run time")
            axes[along] = None
        start = 0
        for output, size in zip(node.outputs, sizes, strict=True):
            flow.set(output, flow.take(axes, along, slice(start, start + (size or 0))))
            start += size or 0
        return None

    def cut(self, node: ir.Node, cut: Cut) -> None:
        along = int(attribute(node, "axis", 0)) % len(dims(node.inputs[0]) or (0,))
        if cut.count(node.inputs[0], along) is None:
            return
        # A part of length 1 is untracked as a value, so its size is counted on the input.
        kept = cut.kept(node.inputs[0], along)
        assert kept is not None
        lengths = [length(output, along) or 0 for output in node.outputs]
        sizes = np.array([int(part.sum()) for part in np.split(kept, np.cumsum(lengths)[:-1])], np.int64)
        node.attributes.pop("num_outputs", None)
        if "split" in node.attributes:
            node.attributes["split"] = ir.AttrInt64s("split", sizes.tolist())
        else:
            if len(node.inputs) < 2:
                node.resize_inputs(2)
            cut.set_constant(node, 1, sizes)


class Slice:
    """Constant bounds: ids[start:end:step]. Bounds computed at run time pin the sliced axes."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        if is_constant(node.inputs[0]):
            return self._table(node, flow)
        result = flow.raw(node.inputs[0])
        parts = self._parts(node, len(result))
        if parts is None:
            flow.pin_inputs(node, "PC104", "the bounds of the slice are computed at run time")
            result = [None] * len(result)
        for axis, part in (parts or {}).items():
            result = flow.take(result, axis, part)
        flow.set(node.outputs[0], result)
        return None

    def _table(self, node: ir.Node, flow: Flow) -> None:
        """Rows of a constant table (positions up to a run-time length): its other axes follow whatever they meet."""
        axes = table_axes(node.inputs[0], flow)
        sliced = ints(node, "axes", 3)
        if sliced is None:
            count = None if given(node, 3) else length(node.inputs[1], 0)
            sliced = list(range(len(axes) if count is None else count))
        for axis in sliced:
            axes[axis] = None
        flow.use(node, 0, axes, "carrier")
        flow.set(node.outputs[0], axes)

    def _parts(self, node: ir.Node, n: int) -> dict[int, slice] | None:
        starts, ends = ints(node, "starts", 1), ints(node, "ends", 2)
        if starts is None or ends is None or (given(node, 3) and constant(node.inputs[3]) is None):
            return None
        axes = ints(node, "axes", 3)
        steps = ints(node, "steps", 4) if given(node, 4) else [1] * len(starts)
        if steps is None:
            return None
        parts: dict[int, slice] = {}
        for i, axis in enumerate(axes if axes is not None else range(len(starts))):
            dim = length(node.inputs[0], axis)
            if dim is None:
                parts[axis % n] = slice(None)  # the axis has no static length, so it is untracked anyway
                continue
            end: int | None = ends[i]
            if steps[i] < 0 and ends[i] < -dim:
                end = None
            parts[axis % n] = slice(starts[i], end, steps[i])
        return parts

    def cut(self, node: ir.Node, cut: Cut) -> None:
        shape = dims(node.inputs[0]) or ()
        parts = self._parts(node, len(shape)) or {}
        touched = {a: p for a, p in parts.items() if cut.kept(node.inputs[0], a) is not None}
        if not touched:
            return
        bounds: dict[int, tuple[int, int, int]] = {}
        picks: dict[int, np.ndarray] = {}
        for axis, part in parts.items():
            mask = cut.kept(node.inputs[0], axis)
            if mask is None:
                continue
            chosen = np.zeros(len(mask), bool)
            order = np.arange(len(mask))[part]
            chosen[order] = True
            new_index = np.cumsum(mask) - 1
            wanted = new_index[order[mask[order]]]
            low, high = (int(wanted[0]), int(wanted[-1]) + 1) if len(wanted) else (0, 0)
            if len(wanted) and np.array_equal(wanted, np.arange(low, high)):
                bounds[axis] = (low, high, 1)
            else:
                picks[axis] = wanted
        self._rewrite(node, cut, parts, bounds, picks)

    def _rewrite(
        self,
        node: ir.Node,
        cut: Cut,
        parts: dict[int, slice],
        bounds: dict[int, tuple[int, int, int]],
        picks: dict[int, np.ndarray],
    ) -> None:
        """Set the new bounds; where the kept positions are no longer a range, gather them first."""
        for axis, wanted in picks.items():
            source = node.inputs[0]
            assert source is not None
            index = cut.add_constant(f"{node.name}.kept", wanted.astype(np.int64))
            node.replace_input_with(
                0, cut.insert_before(node, "Gather", [source, index], {"axis": ir.AttrInt64("axis", axis)})
            )
            bounds[axis] = (0, len(wanted), 1)
        starts, ends = ints(node, "starts", 1) or [], ints(node, "ends", 2) or []
        named = ints(node, "axes", 3)
        rank = len(dims(node.inputs[0]) or dims(node.outputs[0]) or ())
        axes = [a % rank for a in (named if named is not None else range(len(starts)))]
        steps = (ints(node, "steps", 4) if given(node, 4) else None) or [1] * len(starts)
        for i, axis in enumerate(axes):
            if axis in bounds:
                starts[i], ends[i], steps[i] = bounds[axis]
        if "starts" in node.attributes:
            node.attributes["starts"] = ir.AttrInt64s("starts", starts)
            node.attributes["ends"] = ir.AttrInt64s("ends", ends)
            return
        old = constant(node.inputs[1])
        dtype = np.int64 if old is None else old.dtype  # all bounds of a Slice have one type, int32 or int64
        cut.set_constant(node, 1, np.array(starts, dtype))
        cut.set_constant(node, 2, np.array(ends, dtype))
        if given(node, 4):
            cut.set_constant(node, 4, np.array(steps, dtype))


def table_axes(value: ir.Value | None, flow: Flow) -> Axes:
    """Fresh ids for the axes of a floating-point constant that is moved about before it is used."""
    floats = value is not None and value.dtype is not None and value.dtype.is_floating_point()
    lengths = [d if isinstance(d, int) else 1 for d in dims(value) or ()]
    return [flow.fresh(d) if floats and d > 1 else None for d in lengths]


class Gather:
    """Constant indices move ids; a table looked up with run-time indices makes new channels in its last axis."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        data, indices = node.inputs[0], node.inputs[1]
        shape = dims(data)
        picked = dims(indices)
        if shape is None or picked is None:
            flow.pin_inputs(node, "PC104", "the rank of an operand is unknown")
            return
        along = int(attribute(node, "axis", 0)) % max(len(shape), 1)
        for ids in flow.of(indices):
            flow.pin(ids, "PC109", node, "picks positions with it")
        positions = flow.positions.get(indices.name or "") if indices is not None else None
        if positions is not None:
            pick_experts(node, flow, along, positions)
            return
        if is_weight(data):
            self._table(node, flow, along, shape, len(picked))
            return
        index = constant(indices)
        if index is not None and index.ndim <= 1:
            self._pick(node, flow, along, index)
            return
        axes = flow.of(data)
        reason = "its positions are picked at run time" if index is None else "its positions are picked into a table"
        flow.pin(axes[along], "PC109", node, reason)
        flow.set(node.outputs[0], [*axes[:along], *([None] * len(picked)), *axes[along + 1 :]])

    def _pick(self, node: ir.Node, flow: Flow, along: int, index: np.ndarray) -> None:
        """A scalar index removes the axis: inside a joint block that is only movement, else the channel must stay."""
        axes = flow.raw(node.inputs[0])
        entry = axes[along]
        if index.ndim == 0 and isinstance(entry, np.ndarray):
            flow.pick(node, node.outputs[0], entry[[int(index)]], "this very position is picked")
        flow.set(node.outputs[0], flow.take(axes, along, int(index) if index.ndim == 0 else index))

    def _table(self, node: ir.Node, flow: Flow, along: int, shape: tuple[object, ...], picked: int) -> None:
        axes: Axes = [None] * len(shape)
        if len(shape) == 2 and along == 0 and not is_constant(node.inputs[1]):
            axes[1] = flow.fresh(int(shape[1]))  # type: ignore[call-overload]
        flow.use(node, 0, axes, "producer")
        flow.set(node.outputs[0], [*axes[:along], *([None] * picked), *axes[along + 1 :]])

    def cut(self, node: ir.Node, cut: Cut) -> None:
        index = constant(node.inputs[1])
        shape = dims(node.inputs[0])
        if index is None or shape is None:
            return
        along = int(attribute(node, "axis", 0)) % len(shape)
        mask = cut.kept(node.inputs[0], along)
        if mask is None:
            return
        wrapped = np.where(index < 0, index + len(mask), index)
        new_index = (np.cumsum(mask) - 1)[wrapped[mask[wrapped]]] if index.ndim else (np.cumsum(mask) - 1)[wrapped]
        cut.set_constant(node, 1, np.asarray(new_index, index.dtype))


class Pad(KeepsAttributes):
    """Padding a tracked axis adds positions that stay; other axes pass through."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        axes = flow.of(node.inputs[0])
        n = len(axes)
        pads = ints(node, "pads", 1)
        named = ints(node, "axes", 3) if given(node, 3) else None
        if pads is None or (given(node, 3) and named is None):
            flow.pin_inputs(node, "PC104", "the padding is computed at run time")
            outputs_untracked(node, flow)
            return
        where = [a % n for a in named] if named is not None else list(range(n))
        result = list(axes)
        for i, axis in enumerate(where):
            before, after = pads[i], pads[i + len(where)]
            ids = result[axis]
            if ids is None or before == after == 0:
                continue
            if before < 0 or after < 0 or attribute(node, "mode", "constant") != "constant":
                flow.pin(ids, "PC109", node, "is padded from its own values or cropped")
                result[axis] = None
                continue
            extra = flow.fresh(before + after)
            flow.pin(extra, "PC103", node, "is padding")
            result[axis] = np.concatenate([extra[:before], ids, extra[before:]])
        flow.set(node.outputs[0], result)
