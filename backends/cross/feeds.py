"""Inputs and outputs of a compiled model: described, as its memory holds them, and as its users know them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunec.backends.cpu.library import refuse_nan
from prunec.backends.cross.spec import ModelSpec, TensorSpec
from prunec.diagnostics import PrunecError

if TYPE_CHECKING:
    from prunec.backends.cpu.lower.program import Tensor


def describe(tensors: Mapping[str, Tensor], bools: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a program; `bools`: names of those that are bools."""
    return tuple(
        TensorSpec(name=name, dtype=tensor.dtype, shape=tensor.shape, is_bool=name in bools)  # type: ignore[arg-type]
        for name, tensor in tensors.items()
    )


def checked(spec: ModelSpec, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays in the order of the inputs, dense.

    Raises:
        PrunecError PC614: names, shapes or dtypes that are not the model's; PC621: NaN.
    """
    wanted = [tensor.name for tensor in spec.inputs]
    if feeds.keys() != set(wanted):
        given = ", ".join(sorted(feeds)) or "none"
        raise PrunecError("PC614", f"the model takes {', '.join(wanted) or 'no inputs'}, not {given}")
    arrays = []
    for tensor in spec.inputs:
        array = np.asarray(feeds[tensor.name])
        if array.dtype == np.bool_ and tensor.is_bool:
            array = array.view(np.uint8)
        if array.dtype != tensor.dtype or array.shape != tensor.shape:
            message = f"{tensor.name} is {tensor.dtype} {tensor.shape}, not {array.dtype} {array.shape}"
            raise PrunecError("PC614", message, where=tensor.name, hint="generated code has fixed shapes")
        refuse_nan(tensor.name, array)
        arrays.append(np.ascontiguousarray(array))
    return arrays


def results(spec: ModelSpec, flat: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name in their shapes, bools as bools."""
    shaped = {tensor.name: array.reshape(tensor.shape) for tensor, array in zip(spec.outputs, flat, strict=True)}
    return {t.name: shaped[t.name].view(np.bool_) if t.is_bool else shaped[t.name] for t in spec.outputs}
