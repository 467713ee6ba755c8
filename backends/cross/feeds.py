"""Inputs and outputs of a compiled model: described, as its memory holds them, and as its users know them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from prunec.backends.cpu.library import refuse_nan
from prunec.backends.cpu.lower.program import Tensor
from prunec.diagnostics import PrunecError


class TensorSpec(BaseModel):
    """An input or output. `dtype` is the one in memory; bools are bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: Literal["float32", "int32", "int64", "uint8"]
    shape: tuple[int, ...]
    is_bool: bool = False

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Described(Protocol):
    """What a package says of its model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...


def describe(tensors: Mapping[str, Tensor], bools: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a program; `bools`: names of those that are bools."""
    return tuple(
        TensorSpec(name=name, dtype=tensor.dtype, shape=tensor.shape, is_bool=name in bools)  # type: ignore[arg-type]
        for name, tensor in tensors.items()
    )


def checked(spec: Described, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
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


def results(spec: Described, flat: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name in their shapes, bools as bools."""
    shaped = {tensor.name: array.reshape(tensor.shape) for tensor, array in zip(spec.outputs, flat, strict=True)}
    return {t.name: shaped[t.name].view(np.bool_) if t.is_bool else shaped[t.name] for t in spec.outputs}
