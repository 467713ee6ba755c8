"""What a host has to know about a .wasm: written as `model.json`, and as `model.js` for the ES module."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from prunec.backends.cross.feeds import TensorSpec
from prunec.backends.cross.half import Storage
from prunec.backends.wasm.layout import SPEC
from prunec.diagnostics import PrunecError


class WasmSpec(BaseModel):
    """`weights`: beside the module, or in it; `storage`: what they are rounded to and kept in.

    `steps`: the nodes of each call, in order. Sizes in bytes: `weights_bytes` of the file, `memory_bytes` of all that
    an instance ever has, `arena_bytes` of it for intermediate results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    simd: Literal["simd128", "relaxed"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: Literal["beside", "embedded"]
    storage: Storage = "fp32"
    weights_bytes: int
    arena_bytes: int
    memory_bytes: int
    steps: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> WasmSpec:
        """PrunecError PC610 where `folder` has none that prunec wrote."""
        try:
            return cls.model_validate_json((folder / SPEC).read_bytes())
        except (OSError, ValidationError) as reason:
            message = f"{SPEC} is not what prunec wrote: {str(reason).splitlines()[0]}"
            raise PrunecError("PC610", message, where=str(folder), hint="compile the model again") from None
