"""The public functions, one per command: the command line is a thin layer over these.

Keyword arguments mirror the options (`--max-drop 0.01` is `max_drop=0.01`); results are frozen records, and their
`to_json()` is what the command prints with --json. A mistake raises `PrunecError`; a gate or a check that says no
raises `GateError`. A function is imported at its first use: `targets` does not wait for ONNX Runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunec.api.benchmarking import bench
    from prunec.api.compilation import compile
    from prunec.api.explanation import explain
    from prunec.api.inspection import inspect
    from prunec.api.listing import recipes, zoo
    from prunec.api.loading import load
    from prunec.api.planning import plan
    from prunec.api.target_list import targets
    from prunec.api.verification import verify

__all__ = ["bench", "compile", "explain", "inspect", "load", "plan", "recipes", "targets", "verify", "zoo"]

_HOMES = {
    "bench": "benchmarking",
    "compile": "compilation",
    "explain": "explanation",
    "inspect": "inspection",
    "load": "loading",
    "plan": "planning",
    "recipes": "listing",
    "targets": "target_list",
    "verify": "verification",
    "zoo": "listing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"prunec.api.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'prunec.api' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
