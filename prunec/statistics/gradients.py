"""Gradients without labels: of the log-likelihood of outputs that are drawn from the model itself.

At the dense model every loss that compares with the dense model has gradient zero, and a label that the model picks
itself (its best guess) makes a confident model's gradients vanish. Outputs drawn from the model's own distribution
p(y|x; w) do neither, and their gradients g have a meaning: E[g gᵀ] is the Fisher information F, so that E[(Σ w g)²] is
twice the second-order cost wᵀF w/2 of taking the weights out. (Kunstner et al., arXiv 1905.12558, say why the drawn
labels matter.) What p is follows from the operator that makes an output:

| output made by       | p(y|x)                                      |
|----------------------|---------------------------------------------|
| Softmax, LogSoftmax  | categorical                                 |
| Sigmoid              | Bernoulli                                   |
| anything else, float | normal around the output, σ = its RMS       |

Samples go through one at a time, for the sums over a group's weights have to be taken per sample. Relevance (by the
ε-rule with ε → 0, in a network of rectifiers the same as input × gradient: Ancona et al., arXiv 1711.06104) starts from
the largest score of each Softmax or Sigmoid before the operator, else from ½‖y‖².
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.frontend.torch_extra import require_torch
from prunec.graph import Analysis, Group, Member
from prunec.graph.shapes import dims
from prunec.statistics.collect import CalibrationData, Progress

MOST_SAMPLES = 256
"""One backward pass each; the mean over so many is within a few per cent."""
_PASSES = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast"})
_TINY = 1e-12


@dataclass(frozen=True)
class GradientStatistics:
    """Means over `count` samples.

    squares: tensor → E[g²], float32 in the tensor's shape
    products: group → E|Σ w·g| over all weights that make a channel, float64 [group size]
    relevance: group → E|Σ x·∂f/∂x| over all places that use a channel, float64 [group size]
    """

    count: int
    squares: Mapping[str, np.ndarray]
    products: Mapping[str, np.ndarray]
    relevance: Mapping[str, np.ndarray]


def collect_gradients(
    model: ir.Model,
    analysis: Analysis,
    calibration: CalibrationData,
    *,
    relevance: bool = False,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> GradientStatistics:
    """One streaming pass of backward passes over `calibration.fit()`; `model` is dense and canonical.

    With `relevance` only that is collected, without it only the rest.

    Raises:
        PrunecError PC030: torch is missing; PC040: an operator without a torch function; PC331: no samples;
        PC334: a gradient is not finite, or the outputs depend on no weight.
    """
    require_torch("a criterion that reads gradients")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run = _Relevance(model, analysis) if relevance else _Gradients(model, analysis, seed)
        for number, feeds in enumerate(_single_samples(model, calibration)):
            if number == MOST_SAMPLES:
                break
            if progress is not None:
                progress(number, MOST_SAMPLES, "gradients")
            run.add(feeds)
    finally:
        torch.set_num_threads(before)
    if not run.count:
        raise PrunecError("PC331", "there is no calibration sample to take statistics from")
    return run.statistics()


def _single_samples(model: ir.Model, calibration: CalibrationData) -> Iterator[dict[str, np.ndarray]]:
    """One sample at a time where the batch axis is dynamic; a model with a batch of its own gets that."""
    batches = [shape[0] for value in model.graph.inputs if (shape := dims(value))]
    for feeds in calibration.fit():
        sizes = {array.shape[0] for array in feeds.values() if array.ndim}
        if any(isinstance(batch, int) for batch in batches) or len(sizes) != 1:
            yield feeds
            continue
        for i in range(sizes.pop()):
            yield {name: array[i : i + 1] if array.ndim else array for name, array in feeds.items()}


class _Pass:
    """The model as a torch module, and where its outputs come from."""

    def __init__(self, model: ir.Model, analysis: Analysis) -> None:
        from prunec.torch.from_ir import names, to_graph_module

        self.model, self.analysis = model, analysis
        self.module = to_graph_module(model).float()
        self.tensors = {initializer: own for own, initializer in names(self.module).items()}
        self.parameters = dict(self.module.named_parameters())
        self.makers = [_maker(value) for value in model.graph.outputs]
        self.count = 0

    def inputs(self, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        import torch

        order = [str(value.name) for value in self.model.graph.inputs]
        tensors = [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in order]
        return [t.float() if t.is_floating_point() else t for t in tensors]

    def free(self) -> list[Group]:
        return [group for group in self.analysis.groups if group.pinned is None]


class _Gradients(_Pass):
    def __init__(self, model: ir.Model, analysis: Analysis, seed: int) -> None:
        import torch

        super().__init__(model, analysis)
        self.generator = torch.Generator().manual_seed(seed)
        self.products = {group.id: np.zeros(group.size) for group in self.free()}
        self.members = {group.id: list(_weights(group)) for group in self.free()}
        wanted = {m.tensor for members in self.members.values() for m in members}
        wanted |= {m.tensor for group in self.free() for m in group.members if m.role == "consumer"}
        self.squares = {
            name: torch.zeros_like(self.parameters[self.tensors[name]])
            for name in sorted(wanted)
            if self.tensors.get(name) in self.parameters
        }

    def add(self, feeds: Mapping[str, np.ndarray]) -> None:
        import torch

        self.module.zero_grad()
        found = self.module(*self.inputs(feeds))
        outputs = found if isinstance(found, tuple) else (found,)
        floats = [(y, m) for y, m in zip(outputs, self.makers, strict=True) if y.is_floating_point()]
        loss = sum(_drawn_loss(y, maker, self.generator) for y, maker in floats)
        if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
            raise PrunecError("PC334", "no output of the model depends on its weights by way of real numbers")
        loss.backward()
        weighted: dict[str, np.ndarray] = {}
        for name, total in self.squares.items():
            weight = self.parameters[self.tensors[name]]
            if weight.grad is None:
                continue
            total += weight.grad.square()
            weighted[name] = (weight.detach() * weight.grad).numpy()
        for group, members in self.members.items():
            total = np.zeros(len(self.products[group]))
            for member in members:
                if member.tensor in weighted:
                    total += _per_channel(weighted[member.tensor], member, len(total))
            self.products[group] += np.abs(total)
        self.count += 1

    def statistics(self) -> GradientStatistics:
        squares = {name: total.numpy() / self.count for name, total in self.squares.items()}
        for name, values in squares.items():
            if not np.isfinite(values).all():
                hint = "the model overflows in training direction: look at its activations on the calibration data"
                raise PrunecError("PC334", "a gradient is not finite", where=name, hint=hint)
        return GradientStatistics(self.count, squares, {g: t / self.count for g, t in self.products.items()}, {})


class _Relevance(_Pass):
    def __init__(self, model: ir.Model, analysis: Analysis) -> None:
        super().__init__(model, analysis)
        nodes = {node.name or "": node for node in model.graph}
        self.places: list[tuple[str, int, np.ndarray]] = []
        for consumer in analysis.consumers:
            value = nodes[consumer.node].inputs[consumer.data_index]
            if value is not None and not value.is_initializer():
                self.places.append((value.name or "", consumer.axis, consumer.channels))
        self.wanted = {name for name, _, _ in self.places}
        self.starts = [_start(value, maker) for value, maker in zip(model.graph.outputs, self.makers, strict=True)]
        self.totals = {group.id: np.zeros(group.size) for group in self.free()}

    def add(self, feeds: Mapping[str, np.ndarray]) -> None:
        from prunec.torch.values import run_and_keep

        kept = run_and_keep(self.module, self.inputs(feeds), self.wanted | {name for name, _ in self.starts})
        found = [(kept[name], decision) for name, decision in self.starts if kept[name].is_floating_point()]
        start = sum(y.square().sum() / 2 if d is None else y.amax(_axis(d, y)).sum() for y, d in found)
        if isinstance(start, int) or not start.requires_grad:
            raise PrunecError("PC334", "no output of the model depends on its weights by way of real numbers")
        start.backward()
        local = np.zeros(self.analysis.channel_count)
        for name, axis, channels in self.places:
            value = kept.get(name)
            if value is None or value.grad is None:
                continue
            product = np.moveaxis((value.detach() * value.grad).numpy(), axis, 0)
            np.add.at(local, channels, product.reshape(len(channels), -1).sum(axis=1, dtype=np.float64))
        for group in self.free():
            self.totals[group.id] += np.abs(local[group.channels])
        self.count += 1

    def statistics(self) -> GradientStatistics:
        return GradientStatistics(self.count, {}, {}, {g: t / self.count for g, t in self.totals.items()})


_SCORES = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})


def _start(output: ir.Value, maker: ir.Node | None) -> tuple[str, ir.Node | None]:
    """The value that relevance starts from, and the node that makes a decision of it."""
    scores = maker.inputs[0] if maker is not None and maker.op_type in _SCORES else None
    return (output.name or "", None) if scores is None else (scores.name or "", maker)


def _axis(maker: ir.Node | None, scores: Any) -> int:
    """Along which axis the scores of one decision lie."""
    axis = maker.attributes.get("axis") if maker is not None and maker.op_type != "Sigmoid" else None
    rank: int = scores.dim()
    return int(axis.value) % rank if axis is not None else rank - 1


def _maker(value: ir.Value) -> ir.Node | None:
    """The node that computes an output, behind those that only move or cast it."""
    node = value.producer()
    while node is not None and node.op_type in _PASSES and node.inputs[0] is not None:
        earlier = node.inputs[0].producer()
        if earlier is None or len(node.inputs[0].shape or ()) != len(value.shape or ()):
            break
        node = earlier
    return node


def _drawn_loss(y: Any, maker: ir.Node | None, generator: Any) -> Any:
    """−log p of a drawn output, summed."""
    import torch

    kind = "" if maker is None else maker.op_type
    detached = y.detach()
    if kind in ("Softmax", "LogSoftmax"):
        axis = _axis(maker, y)
        chances = detached.exp() if kind == "LogSoftmax" else detached
        rows = chances.movedim(axis, -1).reshape(-1, y.shape[axis]).clamp_min(0)
        drawn = torch.multinomial(rows + _TINY, 1, generator=generator)
        logs = y if kind == "LogSoftmax" else torch.log(y.clamp_min(_TINY))
        return -logs.movedim(axis, -1).reshape(-1, y.shape[axis]).gather(1, drawn).sum()
    if kind == "Sigmoid":
        ones = torch.rand(y.shape, generator=generator) < detached
        return -torch.log(torch.where(ones, y, 1 - y).clamp_min(_TINY)).sum()
    sigma = detached.square().mean().sqrt().clamp_min(_TINY)
    noise = torch.randn(y.shape, generator=generator)
    return (noise * y / sigma).sum()


def _weights(group: Group) -> Iterator[Member]:
    """The members that make the channels, each axis of each tensor once."""
    seen: set[tuple[str, int]] = set()
    for member in group.producers():
        if (member.tensor, member.axis) not in seen:
            seen.add((member.tensor, member.axis))
            yield member


def _per_channel(array: np.ndarray, member: Member, size: int) -> np.ndarray:
    rows = np.moveaxis(array, member.axis, 0).reshape(array.shape[member.axis], -1).sum(axis=1, dtype=np.float64)
    return np.bincount(member.channels, rows[member.places], size)
