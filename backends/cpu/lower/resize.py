"""Resize: whole multiples of nearest neighbours are a copy, everything else goes through tables of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.interpolate import Interpolate
from prunec.backends.cpu.lower.interpolation import Resampling, coordinates, is_inside, table
from prunec.backends.cpu.lower.moves import ints
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import transposed
from prunec.graph.shapes import constant


def resize(state: State, node: ir.Node) -> Sequence[ir.Node]:
    x, shape = state.tensor(node.inputs[0]), shape_of(node.outputs[0])
    if x.dtype != "float32":
        raise Unsupported(f"a resize of {x.dtype}")
    axes = resampled_axes(node, x.shape, shape)
    if any(axis < 1 for axis in axes) or (len(axes) > 1 and 1 in axes):
        raise Unsupported("a resize of the batch, or of the channels with others")
    if len(shape) == 4 and not axes.keys() & {0, 1} and all(_repeats(r) for r in axes.values()):
        y = _repeated(state, node, x, shape)
    else:
        y = _interpolated(state, node, x, axes)
    state.define(node.outputs[0], y)
    return [node]


def resampled_axes(node: ir.Node, before: Sequence[int], after: Sequence[int]) -> dict[int, Resampling]:
    """What happens to every axis that changes. Raises Unsupported for what no table can say."""
    get = node.attributes.get_string
    mode = get("mode", "nearest") or "nearest"
    how = get("coordinate_transformation_mode", "half_pixel") or "half_pixel"
    if node.attributes.get_int("antialias", 0):
        raise Unsupported("a resize with antialiasing")
    listed = [axis % len(before) for axis in node.attributes.get_ints("axes") or range(len(before))]
    scales = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    sizes = ints(node, 3)
    region = constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if (scales is None or not scales.size) and sizes is None:
        raise Unsupported("a resize whose sizes are computed")
    if how == "half_pixel_symmetric" and mode == "nearest":
        # ONNX Runtime rounds on the way where the formula does not say it; floor and ceil then differ.
        raise Unsupported("nearest neighbours of coordinates of the kind half_pixel_symmetric")
    if how == "tf_crop_and_resize" and (region is None or region.size != 2 * len(listed)):
        raise Unsupported("a resize whose region is computed")
    policy = get("keep_aspect_ratio_policy", "stretch")
    common = None
    if sizes is not None and policy != "stretch":
        ratios = [n / before[axis] for n, axis in zip(sizes, listed, strict=True)]
        common = min(ratios) if policy == "not_larger" else max(ratios)
    found: dict[int, Resampling] = {}
    for place, axis in enumerate(listed):
        scale = float(scales[place]) if scales is not None and scales.size else after[axis] / before[axis]
        roi = (0.0, 1.0) if region is None or not region.size else (
            float(region[place]), float(region[place + len(listed)]))  # fmt: skip
        r = Resampling(
            before[axis],
            after[axis],
            scale if common is None else common,
            mode,
            how,
            get("nearest_mode", "round_prefer_floor") or "round_prefer_floor",
            float(node.attributes.get_float("cubic_coeff_a", -0.75)),
            bool(node.attributes.get_int("exclude_outside", 0)),
            roi if how == "tf_crop_and_resize" else (0.0, 1.0),
        )
        if r.before == r.after and r.scale == 1 and r.roi == (0.0, 1.0):
            continue
        if how == "tf_crop_and_resize" and not is_inside(r):
            raise Unsupported("a resize of a region beyond the image")
        try:
            coordinates(r)
        except KeyError:
            raise Unsupported(f"a resize with coordinates of the kind {how}") from None
        found[axis] = r
    return found


def repeats(node: ir.Node, before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether an image is enlarged to whole multiples of itself. Raises Unsupported as `resampled_axes`."""
    axes = resampled_axes(node, before, after)
    return not axes.keys() & {0, 1} and all(_repeats(r) for r in axes.values())


def _repeats(r: Resampling) -> bool:
    """Whether every input is repeated equally often."""
    factor, rest = divmod(r.after, r.before)
    return r.mode == "nearest" and not rest and np.array_equal(table(r)[0][:, 0], np.arange(r.after) // factor)


def _repeated(state: State, node: ir.Node, x: Tensor, shape: Sequence[int]) -> Tensor:
    y = state.result(node.outputs[0], like=x)
    n, c, h, w = x.shape
    fy, fx = shape[2] // h, shape[3] // w
    source = x.view((n, c, h, 1, w, 1), (x.strides[0], x.strides[1], x.strides[2], 0, x.strides[3], 0))
    down, right = y.strides[2], y.strides[3]
    target = y.view((n, c, h, fy, w, fx), (y.strides[0], y.strides[1], down * fy, down, right * fx, right))
    state.copy(source, target, [node])
    return y


def _interpolated(state: State, node: ir.Node, x: Tensor, axes: dict[int, Resampling]) -> Tensor:
    """Two axes at a time; vectors run along axis 1, or along axis 0 where that is the one that changes."""
    dense = 0 if 1 in axes else 1
    if x.strides[dense] != 1:
        x = state.copy(x, _dense_along(state, x.shape, dense))
    left = sorted(axes)
    while True:
        now, left = left[:2], left[2:]
        shape = [axes[axis].after if axis in now else n for axis, n in enumerate(x.shape)]
        is_last = not left and dense == 1
        y = state.result(node.outputs[0]) if is_last and len(shape) == 4 else _dense_along(state, shape, dense)
        _two_axes(state, node, x, y, {axis: axes[axis] for axis in now}, dense)
        if not left:
            return y
        x = y


def _dense_along(state: State, shape: Sequence[int], axis: int) -> Tensor:
    order = [place for place in range(len(shape)) if place != axis] + [axis]
    held = state.plain([shape[place] for place in order], "float32")
    return transposed(held, [order.index(place) for place in range(len(shape))])


def _two_axes(
    state: State, node: ir.Node, x: Tensor, y: Tensor, axes: dict[int, Resampling], dense: int
) -> None:  # fmt: skip
    tables, size, taps, y_strides = [], [], [], []
    for axis in (*[None] * (2 - len(axes)), *axes):
        positions, weights = (np.zeros((1, 1), np.int64), np.ones((1, 1), np.float32)) if axis is None else table(
            axes[axis])  # fmt: skip
        stride = 0 if axis is None else x.strides[axis]
        tables += [state.weights((positions * stride).astype(np.int32)).buffer, state.weights(weights).buffer]
        size.append(positions.shape[0])
        taps.append(positions.shape[1])
        y_strides.append(0 if axis is None else y.strides[axis])
    outer = [axis for axis in range(len(x.shape)) if axis not in axes and axis != dense]
    kernel = Interpolate(
        tuple(x.shape[axis] for axis in outer), (size[0], size[1]), (taps[0], taps[1]), x.shape[dense],
        Access(x.buffer.elements, x.offset, tuple(x.strides[axis] for axis in outer)),
        Access(y.buffer.elements, y.offset, (*(y.strides[axis] for axis in outer), *y_strides)),
    )  # fmt: skip
    assert math.prod(kernel.outer) * math.prod(kernel.size) * kernel.channels == y.size
    state.emit(kernel, [x.buffer, *tables, y.buffer], [node])
