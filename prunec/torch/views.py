"""A module's parameters as what patterns are about, and masks of patterns as masks of parameters.

A pattern is planned for layers of the canonical model, whose weights are slices, transposes and joints of the module's
parameters. `trace_weights` knows which element of which parameter every one of them is, so saliencies go one way and
masks the other, whatever the module calls its parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from prunec.diagnostics import PrunecError
from prunec.passes.compensate.layers import Layer
from prunec.passes.sparsify.views import prunable_layers
from prunec.patterns import Layout, Pattern, parse
from prunec.patterns.nm import NM
from prunec.patterns.on_the_way import on_the_way
from prunec.plan.layers import DENSE
from prunec.plan.plan import LayerPlan
from prunec.torch.provenance import Provenance

Masks = dict[str, torch.Tensor]
Read = Callable[[torch.nn.Parameter], torch.Tensor]
"""What of a parameter is looked at: its values, their squares, its gradient."""


@dataclass(frozen=True)
class View:
    """One planned layer of a model of its own: where its weight's elements are among all parameters."""

    layer: Layer
    origin: np.ndarray
    pattern: Pattern
    level: float

    def matrices(self, flat: np.ndarray) -> list[tuple[np.ndarray, Layout]]:
        """Elements of `flat` (all parameters, none below 0) as [outputs, columns], one per group of the layer."""
        value = self.layer.node.inputs[self.layer.weight_index]
        assert value is not None and value.const_value is not None
        value.const_value = ir.Tensor(np.ascontiguousarray(flat[self.origin]), name=value.name)
        groups, outputs, positions, channels = (whole := self.layer.matrix()).shape
        layout = Layout(positions, channels)
        return [(np.abs(matrix), layout) for matrix in whole.reshape(groups, outputs, positions * channels)]

    def write(self, flat: np.ndarray, matrices: Sequence[np.ndarray]) -> None:
        """Set the elements of `flat` to what the matrices say: masks, or numbers that are not below 0."""
        shape = self.layer.matrix().shape
        matrix = np.stack(matrices).reshape(shape).astype(np.float64)
        written = np.abs(self.layer.arrays(matrix, np.zeros(shape[0] * shape[1]))[self.layer.weight_index])
        flat[self.origin] = written != 0 if flat.dtype == bool else written

    def at(self, share: float) -> tuple[Pattern, float] | None:
        """Pattern and level on the way: `share` of the zeros it will have in the end; None: no zeros yet."""
        return on_the_way(self.pattern, self.level, share)


class Views:
    """All planned layers of a module. `names`: the parameters that they are made of."""

    def __init__(self, module: torch.nn.Module, traced: Provenance, layers: Sequence[LayerPlan]) -> None:
        self.module, self.spans = module, traced.spans
        self.size = traced.size
        known = prunable_layers(traced.model)
        self.views = [_view(known.get(plan.node), traced, plan) for plan in layers if plan.pattern != DENSE]
        self.names = traced.parameters_in(view.origin for view in self.views)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        own = dict(self.module.named_parameters())
        return {name: own[name] for name in self.names}

    def flat(self, read: Read) -> np.ndarray:
        """float32 [elements of all parameters]; those in no planned layer stay 0."""
        flat = np.zeros(self.size, np.float32)
        for name, parameter in self.parameters().items():
            start, shape = self.spans[name]
            flat[start : start + math.prod(shape)] = read(parameter).detach().float().cpu().numpy().ravel()
        return flat

    def masks(self, saliency: Read | np.ndarray, share: float = 1.0) -> Masks:
        """For every parameter the allowed mask that keeps the most saliency, with `share` of the final zeros."""
        flat = saliency if isinstance(saliency, np.ndarray) else self.flat(saliency)
        kept = np.ones(self.size, bool)
        for view in self.views:
            target = view.at(share)
            if target is not None:
                pattern, level = target
                own = view.matrices(flat)
                view.write(kept, [pattern.project(matrix, layout, level) for matrix, layout in own])
        return self.split(kept)

    def thresholds(self, saliency: Read, share: float) -> Masks:
        """Per element of every parameter the saliency half way between what stays and what goes; 0: all stays.

        For patterns of single weights: those of a layer compete with each other, or those of a group of M.
        """
        flat, found = self.flat(saliency), np.zeros(self.size, np.float32)
        for view in self.views:
            target = view.at(share)
            if target is not None:
                pattern, level = target
                own = view.matrices(flat)
                if isinstance(pattern, NM):
                    view.write(found, [_half_way_in_groups(matrix, pattern) for matrix, _ in own])
                else:
                    masks = [pattern.project(matrix, layout, level) for matrix, layout in own]
                    view.write(found, [_half_way(m, kept) for (m, _), kept in zip(own, masks, strict=True)])
        return self.split(found)

    def split(self, flat: np.ndarray) -> Masks:
        """A flat array as one tensor per parameter, on its device."""
        found: Masks = {}
        for name, parameter in self.parameters().items():
            start, shape = self.spans[name]
            own = flat[start : start + math.prod(shape)].reshape(shape)
            found[name] = torch.from_numpy(own.copy()).to(parameter.device)
        return found

    def joined(self, masks: Masks) -> np.ndarray:
        """The flat mask of masks by parameter."""
        kept = np.ones(self.size, bool)
        for name, mask in masks.items():
            start, shape = self.spans[name]
            kept[start : start + math.prod(shape)] = mask.cpu().numpy().ravel()
        return kept


def _half_way(saliency: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The middle of the smallest that stays and the largest that goes, everywhere."""
    middle = (saliency[kept].min(initial=np.inf) + saliency[~kept].max(initial=0.0)) / 2
    return np.full(saliency.shape, middle if np.isfinite(middle) and not kept.all() else 0.0)


def _half_way_in_groups(saliency: np.ndarray, pattern: NM) -> np.ndarray:
    """The same in every group of M columns."""
    groups = np.sort(saliency.reshape(-1, pattern.m), axis=1)
    goes = pattern.m - pattern.n
    middle = groups[:, goes - 1 : goes + 1].mean(axis=1, keepdims=True)
    found: np.ndarray = np.repeat(middle, pattern.m, axis=1).reshape(saliency.shape)
    return found


def _view(layer: object, traced: Provenance, plan: LayerPlan) -> View:
    """PC044 where the layer's weight is not made of parameters alone, or is not one matrix for its inputs."""
    hint = f"leave it out with exclude=['{plan.node}']"
    if not isinstance(layer, Layer):
        message = "only convolutions and products with one weight can be made sparse in a training loop"
        raise PrunecError("PC044", message, where=plan.node, hint=hint)
    value = layer.node.inputs[layer.weight_index]
    origin = None if value is None else traced.origins.get(value.name or "")
    if origin is None:
        message = "the weight is computed from parameters, and zeros in it are zeros in none of them"
        raise PrunecError("PC044", message, where=plan.node, hint=hint)
    return View(layer, origin, parse(plan.pattern), plan.level)
