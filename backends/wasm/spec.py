"""What a host has to know about a .wasm: written as `model.json`, and as `model.js` for the ES module."""

from __future__ import annotations

from typing import Literal

from prunec.backends.cross.spec import ModelSpec

Placement = Literal["beside", "embedded"]
"""Of the weights: beside the module, or in it."""


class WasmSpec(ModelSpec):
    """`memory_bytes`: all that an instance ever has."""

    simd: Literal["simd128", "relaxed"]
    weights: Placement
    memory_bytes: int
