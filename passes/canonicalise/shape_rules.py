"""Output shapes that follow from partly known inputs, where onnx's inference wants whole constants.

`infer(node, facts)` → one shape per output, or None: ask onnx.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx_ir as ir

from prunec.passes.canonicalise.arithmetic import slice_arguments
from prunec.passes.canonicalise.partial import Partial
from prunec.passes.canonicalise.symbols import Dim
from prunec.passes.canonicalise.tools import attribute_int, attribute_ints

if TYPE_CHECKING:
    from prunec.passes.canonicalise.facts import Facts

Shape = tuple[Dim, ...]
Shapes = list[Shape | None]


def infer(node: ir.Node, facts: Facts) -> Shapes | None:
    row = _TABLE.get(node.op_type)
    return None if row is None else row(node, facts)


def _dims(value: Partial | None) -> list[Dim] | None:
    """The entries, if they can be dimensions."""
    if value is None or not all(isinstance(entry, int | str) for entry in value.entries):
        return None
    return [entry for entry in value.entries if isinstance(entry, int | str)]


def _reshape(node: ir.Node, facts: Facts) -> Shapes | None:
    data = facts.shape(node.inputs[0])
    target = _dims(facts.partial(node.inputs[1])) if len(node.inputs) > 1 else None
    if target is None:
        return None
    result: list[Dim] = []
    unknown = None
    for axis, dim in enumerate(target):
        if dim == 0 and not attribute_int(node, "allowzero", 0):
            dim = data[axis] if data is not None and axis < len(data) else facts.symbols.fresh()
        elif isinstance(dim, str) and not facts.symbols.is_non_negative(dim):
            dim = facts.symbols.fresh()
        if dim == -1:
            unknown = axis
            dim = 1
        result.append(dim)
    if unknown is not None:
        rest = (
            None if data is None else facts.symbols.quotient(facts.symbols.product(data), facts.symbols.product(result))
        )
        result[unknown] = facts.symbols.fresh() if rest is None else rest
    return [tuple(result)]


def _expand(node: ir.Node, facts: Facts) -> Shapes | None:
    data, target = facts.shape(node.inputs[0]), _dims(facts.partial(node.inputs[1]))
    if data is None or target is None:
        return None
    rank = max(len(data), len(target))
    left = [1] * (rank - len(data)) + list(data)
    right = [1] * (rank - len(target)) + list(target)
    return [tuple(_broadcast(a, b, facts) for a, b in zip(left, right, strict=True))]


def _broadcast(a: Dim, b: Dim, facts: Facts) -> Dim:
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    for dim in (a, b):
        if isinstance(dim, int):
            return dim
    return facts.symbols.fresh()


def _constant_of_shape(node: ir.Node, facts: Facts) -> Shapes | None:
    dims = _dims(facts.partial(node.inputs[0]))
    return None if dims is None else [tuple(dims)]


def _range(node: ir.Node, facts: Facts) -> Shapes | None:
    start, limit, delta = (facts.partial(value) for value in node.inputs)
    if start is None or limit is None or delta is None or start.entries != (0,) or delta.entries != (1,):
        return [(facts.symbols.fresh(),)]
    end = limit.entries[0]
    if isinstance(end, int | float):
        return None
    return [(end if facts.symbols.is_non_negative(end) else facts.symbols.fresh(),)]


def _resize(node: ir.Node, facts: Facts) -> Shapes | None:
    data = facts.shape(node.inputs[0])
    sizes = _dims(facts.partial(node.inputs[3])) if len(node.inputs) > 3 else None
    scales = facts.partial(node.inputs[2 if len(node.inputs) > 2 else 1])
    policy = node.attributes.get("keep_aspect_ratio_policy")
    if data is None or (policy is not None and policy.as_string() != "stretch"):
        return None
    axes = attribute_ints(node, "axes") or list(range(len(data)))
    result = list(data)
    if sizes is not None and len(sizes) == len(axes):
        for axis, size in zip(axes, sizes, strict=True):
            result[axis] = size
        return [tuple(result)]
    if scales is None or len(scales.entries) != len(axes) or all(isinstance(dim, int) for dim in data):
        return None
    for axis, scale in zip(axes, scales.entries, strict=True):
        result[axis] = _scaled(data[axis], scale, facts)
    return [tuple(result)]


def _scaled(dim: Dim, scale: float | str, facts: Facts) -> Dim:
    if isinstance(scale, str):
        return facts.symbols.fresh()
    if float(scale).is_integer():
        return facts.symbols.product([dim, int(scale)])
    if isinstance(dim, int):
        return int(dim * scale)
    return facts.symbols.derived("resize", dim, scale, signed=False)


def _slice(node: ir.Node, facts: Facts) -> Shapes | None:
    """Only where starts or ends are not constant: the axes that are not sliced keep their size."""
    data = facts.shape(node.inputs[0])
    if data is None or "starts" in node.attributes:
        return None
    values = [facts.partial(value) for value in node.inputs]
    (starts, ends, axes, steps), _ = slice_arguments(node, [facts.array(value) for value in node.inputs])
    if starts is not None and ends is not None:
        return None
    if len(values) > 3 and node.inputs[3] is not None and axes is None:
        return None
    if axes is None:
        first = values[1] or values[2]
        if first is None:
            return None
        cut = list(range(len(first.entries)))
    else:
        cut = [int(axis) % len(data) for axis in axes.reshape(-1)]
    result = list(data)
    for axis in cut:
        result[axis] = facts.symbols.fresh()
    if steps is None or bool((steps == 1).all()):
        for position, axis in enumerate(cut):
            result[axis] = _cut(data[axis], values[1], values[2], position) or result[axis]
    return [tuple(result)]


def _cut(dim: Dim, starts: Partial | None, ends: Partial | None, position: int) -> Dim | None:
    if starts is None or ends is None or starts.entries[position] != 0:
        return None
    return dim if ends.entries[position] == dim else None


def _pad(node: ir.Node, facts: Facts) -> Shapes | None:
    """Only where some pads are not constant: an axis without padding keeps its size."""
    data = facts.shape(node.inputs[0])
    pads = _dims(facts.partial(node.inputs[1])) if len(node.inputs) > 1 else None
    axes_given = len(node.inputs) > 3 and node.inputs[3] is not None
    if data is None or pads is None or all(isinstance(pad, int) for pad in pads) or axes_given:
        return None
    rank = len(data)
    if len(pads) != 2 * rank:
        return None
    result: list[Dim] = []
    for axis, dim in enumerate(data):
        before, after = pads[axis], pads[axis + rank]
        if before == 0 and after == 0:
            result.append(dim)
        elif isinstance(before, int) and isinstance(after, int) and isinstance(dim, int):
            result.append(dim + before + after)
        else:
            result.append(facts.symbols.fresh())
    return [tuple(result)]


def _tile(node: ir.Node, facts: Facts) -> Shapes | None:
    data, repeats = facts.shape(node.inputs[0]), _dims(facts.partial(node.inputs[1]))
    if data is None or repeats is None or len(repeats) != len(data):
        return None
    return [tuple(facts.symbols.product([dim, times]) for dim, times in zip(data, repeats, strict=True))]


def _topk(node: ir.Node, facts: Facts) -> Shapes | None:
    """The ranked axis gets length k, whether or not its own length is known."""
    data, count = facts.shape(node.inputs[0]), _dims(facts.partial(node.inputs[1])) if len(node.inputs) > 1 else None
    if data is None or count is None or len(count) != 1:
        return None
    axis = attribute_int(node, "axis", -1) % max(len(data), 1)
    shape = (*data[:axis], count[0], *data[axis + 1 :])
    return [shape, shape]


def _same(node: ir.Node, facts: Facts) -> Shapes | None:
    return [facts.shape(node.inputs[0])]


_TABLE: dict[str, Callable[[ir.Node, Facts], Shapes | None]] = {
    "Reshape": _reshape, "Expand": _expand, "ConstantOfShape": _constant_of_shape, "Range": _range,
    "Resize": _resize, "Slice": _slice, "Pad": _pad, "Tile": _tile, "TopK": _topk, "GroupNormalization": _same,
    "MeanVarianceNormalization": _same,
}  # fmt: skip
