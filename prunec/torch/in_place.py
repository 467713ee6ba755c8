"""The user's own module with its parameters cut: a deep copy, same class, same names.

Whether the copy computes the pruned model is not argued but measured (`agreement`).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from prunec.frontend.torch import in_eval_mode
from prunec.torch.attributes import guess, is_known, misfit, update_known
from prunec.torch.parameters import NewParameters, NotInPlace


def cut_module(module: nn.Module, new: NewParameters) -> nn.Module:
    """A copy of `module` with the new parameters and with attributes that fit them.

    Raises:
        NotInPlace: a parameter of the graph is not the module's, or a layer cannot have different widths inside.
    """
    result = copy.deepcopy(module)
    owned = {name: (owner, leaf) for name, owner, leaf in _tensors(result)}
    twins: dict[int, list[str]] = defaultdict(list)
    for name, (owner, leaf) in owned.items():
        twins[id(getattr(owner, leaf))].append(name)
    lengths: dict[nn.Module, list[tuple[int, int]]] = defaultdict(list)
    touched: dict[nn.Module, int | None] = {}
    for name, keep in new.keeps.items():
        if name not in owned:
            if name in new.values or any(len(k) == 0 for k in keep):
                raise NotInPlace(f"{name} is no parameter of the module")
            continue
        owner, leaf = owned[name]
        old = getattr(owner, leaf)
        cut = tuple(old.shape) != tuple(len(k) for k in keep)
        if not cut and name not in new.values:
            continue
        tensor = _new_tensor(old, keep, new.values.get(name))
        for twin in twins[id(old)]:
            place, own = owned[twin]
            _set(place, own, tensor)
            touched.setdefault(place, None)
            lengths[place] += [(a, len(k)) for a, k in zip(old.shape, keep, strict=True) if a != len(k)]
    for name, count in new.groups.items():
        touched[owned[name][0]] = count
    for name, values in new.biases.items():
        _add_bias(*owned[name], values)
    for layer, groups in touched.items():
        if is_known(layer):
            if (why := misfit(layer)) is not None:
                raise NotInPlace(*why)
            try:
                update_known(layer, groups)
            except RuntimeError as error:
                raise NotInPlace(f"{type(layer).__name__} cannot have different widths inside: {error}") from error
    _update_others(result, lengths, owned, new.counts)
    return result


def agreement(module: nn.Module, args: Any, kwargs: Any, expected: Sequence[np.ndarray]) -> float:
    """Largest deviation from the expected outputs, relative to the largest value of each; inf where shapes differ.

    Raises whatever the module raises.
    """
    with in_eval_mode(module), torch.no_grad():
        found = module(*args, **kwargs)
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)]
    if len(tensors) != len(expected):
        return float("inf")
    worst = 0.0
    for tensor, want in zip(tensors, expected, strict=True):
        got = tensor.detach().cpu().to(torch.float64).numpy()
        if got.shape != want.shape:
            return float("inf")
        if want.size:
            scale = max(float(np.abs(want).max()), 1e-30)
            worst = max(worst, float(np.abs(got - want.astype(np.float64)).max()) / scale)
    return worst if np.isfinite(worst) else float("inf")


def _tensors(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every parameter and buffer under every name it has: (full name, owner, name there)."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        for leaf, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None:
                yield (f"{prefix}.{leaf}" if prefix else leaf), part, leaf


def _new_tensor(old: torch.Tensor, keep: tuple[np.ndarray, ...], values: np.ndarray | None) -> torch.Tensor:
    data = old.detach()
    for axis, positions in enumerate(keep):
        data = torch.index_select(data, axis, torch.from_numpy(positions).to(data.device))
    data = data.clone()
    if values is not None:
        written = torch.from_numpy(~np.isnan(values)).to(data.device)
        data = torch.where(written, torch.from_numpy(np.nan_to_num(values)).to(data), data)
    return nn.Parameter(data, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else data


def _set(owner: nn.Module, leaf: str, tensor: torch.Tensor) -> None:
    (owner._parameters if leaf in owner._parameters else owner._buffers)[leaf] = tensor


def _add_bias(owner: nn.Module, leaf: str, values: np.ndarray) -> None:
    if leaf != "weight" or not isinstance(owner, nn.modules.conv._ConvNd | nn.Linear) or owner.bias is not None:
        raise NotInPlace(f"{type(owner).__name__} has no place for a bias")
    owner.bias = nn.Parameter(torch.from_numpy(values).to(owner.weight.detach()))


def _update_others(
    result: nn.Module,
    lengths: dict[nn.Module, list[tuple[int, int]]],
    owned: dict[str, tuple[nn.Module, str]],
    counts: Sequence[tuple[str, int, int]],
) -> None:
    """Integers of modules that are no known layers, from the lengths of their own and their children's parameters."""
    for name, before, after in counts:
        if name in owned:
            lengths[owned[name][0]].append((before, after))
    parents: Callable[[nn.Module], list[tuple[int, int]]] = lambda part: [  # noqa: E731
        pair for child in [part, *part.children()] for pair in lengths.get(child, ())
    ]
    for part in result.modules():
        if not is_known(part):
            for name, (_, after) in guess(part, parents(part)).items():
                setattr(part, name, after)
