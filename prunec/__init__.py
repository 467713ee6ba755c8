"""prunec: a neural-network pruning compiler.

`prunec.compile`, `prunec.inspect`, `prunec.plan` … are the commands as functions (see `prunec.api`). They are looked up
at first use, so that `import prunec` costs next to nothing and loads neither ONNX Runtime nor torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a source checkout passes/, backends/ and models/ lie beside this folder; installed, they lie inside it.
if not os.path.isdir(os.path.join(__path__[0], "passes")):
    __path__.append(os.path.dirname(__path__[0]))

if TYPE_CHECKING:
    from prunec.api import bench, compile, explain, inspect, load, plan, recipes, targets, verify, zoo
    from prunec.diagnostics import GateError, PrunecError
    from prunec.torch import prune

__all__ = [
    "GateError",
    "PrunecError",
    "__version__",
    "bench",
    "compile",
    "explain",
    "inspect",
    "load",
    "plan",
    "prune",
    "recipes",
    "targets",
    "verify",
    "zoo",
]

_FUNCTIONS = frozenset({"bench", "compile", "explain", "inspect", "load", "targets", "zoo"})
_CALLABLE_PACKAGES = frozenset({"plan", "recipes", "verify"})  # function and sub-package: docs/decisions/0002
_ERRORS = frozenset({"GateError", "PrunecError"})


def __getattr__(name: str) -> Any:
    if name in _CALLABLE_PACKAGES or name == "torch":
        return importlib.import_module(f"prunec.{name}")
    if name == "prune":
        return importlib.import_module("prunec.torch").prune
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("prunec.api"), name)
    if name in _ERRORS:
        return getattr(importlib.import_module("prunec.diagnostics"), name)
    raise AttributeError(f"module 'prunec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
