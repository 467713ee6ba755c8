"""Zeros that stay zeros while a module with a sparsity pattern is trained on.

A mask per parameter, outside the module: its class, its parameters and its `state_dict()` stay as they are, and a saved
state needs nothing to be loaded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch

from prunec.graph.shapes import dims
from prunec.graph.weights import is_weight, source
from prunec.plan.layers import DENSE
from prunec.plan.plan import Plan
from prunec.torch.from_ir import names
from prunec.torch.provenance import Provenance

Masks = Mapping[str, torch.Tensor]
"""Parameter → bool tensor of its shape, False where it is zero for good."""


def apply_masks(module: torch.nn.Module, masks: Masks) -> None:
    """Write the zeros again, in place. KeyError for a parameter that `module` does not have."""
    parameters = dict(module.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            own = parameters[name]
            own.masked_fill_(~mask.to(own.device), 0.0)  # a product would leave zeros with a minus sign


def hold_zeros(optimiser: torch.optim.Optimizer, module: torch.nn.Module, masks: Masks) -> Any:
    """Apply `masks` after every step of `optimiser`, whatever momentum and weight decay say.

    Returns the handle of the hook, whose `remove()` lets the zeros go.
    """
    apply_masks(module, masks)
    return optimiser.register_step_post_hook(lambda *_: apply_masks(module, masks))


def masks_of(module: torch.nn.Module, sparse: Iterable[str]) -> dict[str, torch.Tensor]:
    """Masks of the named parameters as they are now, where they have a zero."""
    parameters = dict(module.named_parameters())
    found = {name: parameters[name].detach() != 0 for name in dict.fromkeys(sparse) if name in parameters}
    return {name: mask for name, mask in found.items() if not bool(mask.all())}


def own_parameters(plan: Plan, traced: Provenance) -> list[str]:
    """The module's parameters that the plan's patterns are in."""
    names = [value.name or "" for value in _weights(plan, traced.model)]
    return traced.parameters_in(traced.origins[name] for name in names if name in traced.origins)


def graph_parameters(plan: Plan, module: Any, model: ir.Model) -> Iterator[str]:
    """The parameters of a graph module of `model` that the plan's patterns are in."""
    parameters = {initializer: name for name, initializer in names(module).items()}
    for value in _weights(plan, model):
        if value.name in parameters:
            yield parameters[value.name]


def _weights(plan: Plan, model: ir.Model) -> Iterator[ir.Value]:
    """The constants of two and more axes that a planned layer reads."""
    patterns = {layer.node for layer in plan.layers if layer.pattern != DENSE}
    for node in model.graph:
        for value in node.inputs if node.name in patterns else ():
            if value is not None and is_weight(value) and len(dims(source(value)) or ()) >= 2:
                yield source(value)
