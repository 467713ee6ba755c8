"""Resize, one axis after the other: every output position is a weighted sum of a few input positions.

Linear, cubic and nearest interpolation are all of that form, so one loop serves every mode and every way to map
coordinates. Weights are computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.nn import functional

from prunec.graph.rules.base import attribute, given
from prunec.torch.operators.common import Buffer, Ints, ints


def resize(
    x: Any,
    roi: Buffer = None,
    scales: Buffer = None,
    sizes: Ints = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    axes: tuple[int, ...] | None = None,
    extrapolation_value: float = 0.0,
    antialias: int = 0,
    keep_aspect_ratio_policy: str = "stretch",
) -> Any:
    along = [a % x.dim() for a in (axes if axes is not None else range(x.dim()))]
    wanted = ints(sizes)
    factors = None if scales is None or scales.numel() == 0 else [float(s) for s in scales.tolist()]
    for number, axis in enumerate(along):
        length = x.shape[axis]
        if wanted is not None:
            out, scale = wanted[number], wanted[number] / length
        else:
            assert factors is not None
            out, scale = math.floor(length * factors[number]), factors[number]
        if out == length and scale == 1:
            continue
        where = _coordinates(out, length, scale, coordinate_transformation_mode)
        index, weight = _taps(where, length, mode, nearest_mode, cubic_coeff_a, bool(exclude_outside))
        x = _combine(x, axis, index, weight)
    return x


def grid_sample(x: Any, grid: Any, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0) -> Any:
    how = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return functional.grid_sample(x, grid, how, padding_mode, bool(align_corners))


def upsample(x: Any, scales: Buffer, *, mode: str = "nearest") -> Any:
    """The operator before Resize."""
    return resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _coordinates(out: int, length: int, scale: float, how: str) -> np.ndarray:
    """float64 [out]: where in the input each output position lies."""
    at = np.arange(out, dtype=np.float64)
    if how == "asymmetric":
        return at / scale
    if how == "align_corners":
        return at * (length - 1) / (out - 1) if out > 1 else np.zeros(out)
    if how == "pytorch_half_pixel" and out == 1:
        return np.zeros(1)
    if how == "half_pixel_symmetric":
        shift = length / 2 * (1 - out / (scale * length))
        return shift + (at + 0.5) / scale - 0.5
    return (at + 0.5) / scale - 0.5


def _taps(
    where: np.ndarray, length: int, mode: str, nearest: str, a: float, exclude: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Indices int64 [taps, out], inside the input, and weights float64 [taps, out]."""
    if mode == "nearest":
        found = _nearest(where, nearest)
        return np.clip(found, 0, length - 1).astype(np.int64)[None], np.ones((1, len(where)))
    base = np.floor(where)
    part = where - base
    if mode == "linear":
        offsets, weight = np.array([0, 1]), np.stack([1 - part, part])
    else:
        offsets = np.array([-1, 0, 1, 2])
        weight = np.stack([_cubic(np.abs(part - offset), a) for offset in offsets])
    index = base[None] + offsets[:, None]
    if exclude:
        weight = np.where((index < 0) | (index >= length), 0, weight)
        weight = weight / weight.sum(axis=0)
    return np.clip(index, 0, length - 1).astype(np.int64), weight


def _nearest(where: np.ndarray, how: str) -> np.ndarray:
    if how == "floor":
        return np.asarray(np.floor(where))
    if how == "ceil":
        return np.asarray(np.ceil(where))
    return np.asarray(np.ceil(where - 0.5) if how == "round_prefer_floor" else np.floor(where + 0.5))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _combine(x: Any, axis: int, index: np.ndarray, weight: np.ndarray) -> Any:
    shape: Sequence[int] = [-1 if i == axis else 1 for i in range(x.dim())]
    parts = []
    for positions, factors in zip(index, weight, strict=True):
        part = torch.index_select(x, axis, torch.from_numpy(positions).to(x.device))
        if len(index) > 1:
            part = part * torch.from_numpy(factors).to(x).reshape(shape)
        parts.append(part)
    return parts[0] if len(parts) == 1 else sum(parts[1:], parts[0])


def _refusal(node: ir.Node) -> str | None:
    if attribute(node, "coordinate_transformation_mode", "") in ("tf_crop_and_resize",):
        return "coordinate_transformation_mode tf_crop_and_resize"
    if attribute(node, "antialias", 0):
        return "antialias"
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch" and given(node, 3):
        return f"keep_aspect_ratio_policy {attribute(node, 'keep_aspect_ratio_policy')}"
    return None


OPERATORS = {"GridSample": grid_sample, "Resize": resize, "Upsample": upsample}
REFUSALS = {"Resize": _refusal}
