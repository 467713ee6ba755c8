"""What a host has to know about a model that was compiled for another machine: the package's `model.json`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from prunec.backends.cross.half import Storage
from prunec.diagnostics import PrunecError

if TYPE_CHECKING:
    from typing_extensions import Self

SPEC = "model.json"


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


class ModelSpec(BaseModel):
    """`storage`: what weights are rounded to and kept in. `steps`: the nodes of each call, in order.

    Sizes in bytes: `weights_bytes` as they are stored, `arena_bytes` for intermediate results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    storage: Storage = "fp32"
    weights_bytes: int
    arena_bytes: int
    steps: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs by name."""
        return {tensor.name: tensor.shape for tensor in self.inputs}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """PrunecError PC610 where `folder` has none that prunec wrote."""
        try:
            return cls.model_validate_json((folder / SPEC).read_bytes())
        except (OSError, ValidationError) as reason:
            message = f"{SPEC} is not what prunec wrote: {str(reason).splitlines()[0]}"
            raise PrunecError("PC610", message, where=str(folder), hint="compile the model again") from None
