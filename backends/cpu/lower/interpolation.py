"""Tables of Resize along one axis: which inputs every output takes, with which weights (ONNX operator set 19).

Coordinates are computed in float32, as ONNX Runtime does it: where two inputs are equally near, rounding decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Resampling:
    """`scale`: length after / before, as the model says it (it need not be the ratio of the whole numbers)."""

    before: int
    after: int
    scale: float
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    roi: tuple[float, float] = (0.0, 1.0)


def coordinates(r: Resampling) -> np.ndarray:
    """Where every output lies between the inputs, float32 [after]. KeyError for a convention that is not known."""
    x: np.ndarray = np.arange(r.after, dtype=np.float32)
    one, half, scale = np.float32(1), np.float32(0.5), np.float32(r.scale)
    half_pixel = (x + half) / scale - half

    def symmetric() -> np.ndarray:
        adjustment = np.float32(r.after) / (scale * np.float32(r.before))
        centre = np.float32(r.before) / np.float32(2)
        return np.asarray(centre * (one - adjustment) + (x + half) / scale - half)

    def aligned() -> np.ndarray:
        return x * np.float32(r.before - 1) / np.float32(r.after - 1) if r.after > 1 else np.zeros_like(x)

    def cropped() -> np.ndarray:
        start, end, last = np.float32(r.roi[0]), np.float32(r.roi[1]), np.float32(r.before - 1)
        if r.after == 1:
            return np.full_like(x, half * (start + end) * last)
        return np.asarray(start * last + x * (end - start) * last / np.float32(r.after - 1))

    known: dict[str, Callable[[], np.ndarray]] = {
        "half_pixel": lambda: half_pixel,
        "half_pixel_symmetric": symmetric,
        "pytorch_half_pixel": lambda: half_pixel if r.after > 1 else np.zeros_like(x),
        "tf_half_pixel_for_nn": lambda: (x + half) / scale,
        "asymmetric": lambda: x / scale,
        "align_corners": aligned,
        "tf_crop_and_resize": cropped,
    }
    return known[r.coordinates]()


def table(r: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Positions int64 and weights float32, both [after, taps]; positions beyond the ends are the ends."""
    x = coordinates(r) if r.before != r.after or r.scale != 1 else np.arange(r.after, dtype=np.float32)
    if r.mode == "nearest":
        at, weight = _nearest(x, r.nearest)[:, None], np.ones((r.after, 1), np.float32)
    elif r.mode == "linear":
        low = np.floor(x)
        share = x - low
        at, weight = low[:, None] + np.arange(2), np.stack([1 - share, share], 1)
    else:
        low = np.floor(x)
        at, weight = low[:, None] + np.arange(-1, 3), _cubic(x - low, r.cubic)
        if r.exclude_outside:
            weight = np.where((at < 0) | (at >= r.before), 0, weight)
            weight = weight / weight.sum(axis=1, keepdims=True)
    positions = np.clip(at, 0, r.before - 1).astype(np.int64)
    return positions, weight.astype(np.float32)


def _nearest(x: np.ndarray, how: str) -> np.ndarray:
    half = np.float32(0.5)
    known: dict[str, np.ndarray] = {
        "round_prefer_floor": np.ceil(x - half),
        "round_prefer_ceil": np.floor(x + half),
        "floor": np.floor(x),
        "ceil": np.ceil(x),
    }
    return known[how]


def _cubic(share: np.ndarray, a: float) -> np.ndarray:
    """Keys, Cubic convolution interpolation for digital image processing, 1981."""
    s = share.astype(np.float64)

    def near(d: np.ndarray) -> np.ndarray:
        return np.asarray(((a + 2) * d - (a + 3)) * d * d + 1)

    def far(d: np.ndarray) -> np.ndarray:
        return np.asarray(((a * d - 5 * a) * d + 8 * a) * d - 4 * a)

    return np.stack([far(s + 1), near(s), near(1 - s), far(2 - s)], axis=1)


def is_inside(r: Resampling) -> bool:
    """Whether no output lies beyond the ends."""
    x = coordinates(r)
    return bool(math.floor(float(x.min())) >= 0 and float(x.max()) <= r.before - 1)
