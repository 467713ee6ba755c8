"""prunec for torch: prune a module and train it on. Needs the [torch] extra; nothing is imported before it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunec.torch.from_ir import to_graph_module
    from prunec.torch.masks import apply_masks, hold_zeros
    from prunec.torch.pruning import PrunedModule, load_pruned, prune
    from prunec.torch.souping import soup
    from prunec.torch.sparsifier import Sparsifier

__all__ = ["PrunedModule", "Sparsifier", "apply_masks", "hold_zeros", "load_pruned", "prune", "soup", "to_graph_module"]

_HOMES = {
    "PrunedModule": "pruning",
    "Sparsifier": "sparsifier",
    "apply_masks": "masks",
    "hold_zeros": "masks",
    "load_pruned": "pruning",
    "prune": "pruning",
    "soup": "souping",
    "to_graph_module": "from_ir",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from prunec.frontend.torch_extra import require_torch

        require_torch(f"prunec.torch.{name}")
        return getattr(importlib.import_module(f"prunec.torch.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'prunec.torch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
