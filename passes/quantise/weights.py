"""Weights in int8: one symmetric scale for each output channel, zero stays zero."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunec.passes.solve.grid import grid_for

LEVELS = {8: 127, 7: 63}
"""By bits. 7 where products of uint8 and int8 are added in 16 bits, which 8 would overflow."""
LARGEST_BIAS = 2.0**30
"""In steps. Half of what 32 bits hold: the products are added to it."""

Int8 = npt.NDArray[np.int8]
Float = npt.NDArray[np.float32]


def least_scales(bias: np.ndarray, step: float) -> np.ndarray:
    """The smallest scales [channels] of weights with which `bias` fits, whose inputs have the scale `step`."""
    found: np.ndarray = np.abs(bias) / (step * LARGEST_BIAS)
    return found


def quantised_weight(
    weight: np.ndarray,
    axis: int,
    bias: np.ndarray | None,
    step: float,
    bits: int = 8,
    steps: np.ndarray | None = None,
) -> tuple[Int8, Float]:
    """(int8 of `weight`'s shape, float32 scales [channels along `axis`]), each with the least squared rounding error.

    `steps` [channels]: the scales of weights that are multiples of them already. `bias` [channels] will be int32 at
    `step` (the input's scale) times these scales: they are at least so large that it fits.
    """
    levels = LEVELS[bits]
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    scales = grid_for(rows, levels).steps if steps is None else steps
    if bias is not None:
        scales = np.maximum(scales, least_scales(bias, step))
    scales = np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32).astype(np.float64)
    values = np.clip(np.rint(rows / scales[:, None]), -levels, levels).astype(np.int8)
    shape = np.moveaxis(weight, axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(values.reshape(shape), 0, axis)), scales.astype(np.float32)
