"""Convolution for the float64 reference: the product of kernel and patches, for some output positions at a time.

ONNX's own copies all patches at once, with an index of eight bytes for every number in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx.reference.op_run import OpRun

PATCH_ELEMENTS = 1 << 19
"""Of the patches that are copied at a time (4 MiB in float64)."""
FEWEST_POSITIONS = 16
"""Fewer make a product of matrices slow."""


class Conv(OpRun):
    """`Conv` of ai.onnx, of any rank; the name is the operator's."""

    op_domain = ""

    def _run(
        self,
        x: np.ndarray,
        w: np.ndarray,
        bias: np.ndarray | None = None,
        auto_pad: str | None = None,
        dilations: Sequence[int] | None = None,
        group: int | None = None,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[np.ndarray]:
        rank = x.ndim - 2
        kernel = w.shape[2:]
        strides = strides or [1] * rank
        dilations = dilations or [1] * rank
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        padding = [(0, 0), *_padding(x.shape[2:], reach, strides, auto_pad or "NOTSET", pads)]
        y: np.ndarray | None = None
        for sample in range(len(x)):
            padded = np.pad(x[sample], padding) if np.any(padding) else x[sample]
            found = convolve(padded, w, group or 1, strides, dilations, bias)
            y = np.empty((len(x), *found.shape), found.dtype) if y is None else y
            y[sample] = found
        if y is None:
            raise ValueError("a convolution of no samples")
        return (y,)


def convolve(
    x: np.ndarray, w: np.ndarray, groups: int, strides: Sequence[int], dilations: Sequence[int], bias: np.ndarray | None
) -> np.ndarray:
    """y [M, out…] of one sample x [C, in…], padded already, and w [M, C/groups, k…]."""
    rank = x.ndim - 1
    reach = tuple((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(1, 1 + rank)))
    steps = [slice(None), *(slice(None, None, n) for n in (*strides, *dilations))]
    windows = windows[tuple(steps)]  # [C, out…, k…]
    channels, *sizes = windows.shape[: 1 + rank]
    outputs, per_group, depth = w.shape[0], channels // groups, w[0].size
    if per_group != w.shape[1] or outputs % groups:
        raise ValueError(f"{channels} channels in {groups} groups do not fit a weight of shape {w.shape}")
    y = np.empty((outputs, *sizes), np.result_type(x, w))
    matrix = w.reshape(groups, outputs // groups, depth)
    rest = math.prod(sizes[1:])
    rows = max(1, max(PATCH_ELEMENTS // (groups * depth), FEWEST_POSITIONS) // max(rest, 1))
    order = (0, *range(1 + rank, 1 + 2 * rank), *range(1, 1 + rank))
    for first in range(0, sizes[0], rows):
        part = windows[:, first : first + rows]
        patches = part.transpose(order).reshape(groups, depth, -1)
        y[:, first : first + rows] = np.matmul(matrix, patches).reshape(outputs, *part.shape[1 : 1 + rank])
    if bias is not None:
        y += bias.reshape(-1, *([1] * rank))
    return y


def _padding(
    sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], mode: str, pads: Sequence[int] | None
) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis."""
    if mode == "VALID" or (mode == "NOTSET" and not pads):
        return [(0, 0)] * len(sizes)
    if mode == "NOTSET":
        assert pads is not None
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    totals = [max(0, (-(-n // s) - 1) * s + r - n) for n, s, r in zip(sizes, strides, reach, strict=True)]
    halves = [(total // 2, total - total // 2) for total in totals]
    return halves if mode == "SAME_UPPER" else [(behind, before) for before, behind in halves]
