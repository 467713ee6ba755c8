"""True zeros: what a mask removes becomes +0.0, whatever stood there (−0.0 and NaN included)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Float = TypeVar("Float", bound=np.floating)


def masked(weight: npt.NDArray[Float], mask: npt.NDArray[np.bool_]) -> npt.NDArray[Float]:
    """`weight` where `mask`, +0.0 elsewhere; kept negative zeros become +0.0 as well."""
    found: npt.NDArray[Float] = np.where(mask, weight, weight.dtype.type(0)) + weight.dtype.type(0)
    return found
