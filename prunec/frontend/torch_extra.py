"""The [torch] extra: whether it is here, and what to say if it is not."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from prunec.diagnostics import PrunecError


def require_torch(what: str) -> None:
    """Raise PrunecError PC030 where torch is not installed. `what` is the subject of the sentence."""
    if importlib.util.find_spec("torch") is None:
        raise PrunecError("PC030", f"{what} needs torch", hint="pip install 'prunec[torch]'")


def is_module(model: Any) -> bool:
    """Whether `model` is a `torch.nn.Module` (False, without importing torch, for everything that names a file)."""
    if isinstance(model, str | bytes | os.PathLike):
        return False
    if not any(base.__module__.partition(".")[0] == "torch" for base in type(model).__mro__):
        return False
    import torch

    return isinstance(model, torch.nn.Module)
