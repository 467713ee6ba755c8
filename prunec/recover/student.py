"""The pruned model as a torch module whose zeros stay zeros, taken apart at borders, and written back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from prunec.graph.shapes import dims
from prunec.recover.cheaper import channels_last, make_cheaper
from prunec.recover.parameters import Trainable
from prunec.torch.from_ir import names, to_graph_module, values

State = dict[str, torch.Tensor]


class Student:
    """`parameters`: initializer → parameter of everything that can be trained; nothing else asks for gradients."""

    def __init__(self, model: ir.Model, trained: Trainable) -> None:
        self.module = to_graph_module(model)
        channels_last(self.module)
        values = (value for node in model.graph for value in node.outputs)
        self._with_axes = {value.name or "" for value in [*model.graph.inputs, *values] if dims(value)}
        own = dict(self.module.named_parameters())
        found = {name: own[place] for place, name in names(self.module).items() if place in own}
        self.parameters = {name: found[name] for name in trained.names if name in found}
        for parameter in own.values():
            parameter.requires_grad_(False)
        masks = {name: self.parameters[name].detach() != 0 for name in trained.weights if name in self.parameters}
        self.masks: State = {name: mask for name, mask in masks.items() if not bool(mask.all())}

    @property
    def count(self) -> int:
        """Numbers that training may change."""
        zeros = sum(int((~mask).sum()) for mask in self.masks.values())
        return sum(int(parameter.numel()) for parameter in self.parameters.values()) - zeros

    def part(self, start: str | None, targets: Sequence[str]) -> Part:
        """From the value `start`, or the inputs alone, to `targets`; it shares the parameters."""
        return Part(self.module, start, targets, self._with_axes)

    def state(self, wanted: Collection[str]) -> State:
        return {name: self.parameters[name].detach().clone() for name in wanted}

    def restore(self, state: State) -> None:
        with torch.no_grad():
            for name, tensor in state.items():
                self.parameters[name].copy_(tensor)

    def mask_gradients(self, wanted: Collection[str]) -> None:
        """Before every step of an optimiser: what is zero gets no gradient and so no momentum."""
        for name in wanted:
            gradient = self.parameters[name].grad
            if gradient is not None and name in self.masks:
                gradient.mul_(self.masks[name])

    def mask_weights(self, wanted: Collection[str]) -> None:
        """After every step, whatever the optimiser did."""
        with torch.no_grad():
            for name in wanted:
                if name in self.masks:
                    self.parameters[name].masked_fill_(~self.masks[name], 0.0)

    def written_to(self, model: ir.Model) -> ir.Model:
        """A copy of `model` with the parameters as they are now; shapes, types and zeros are those it had."""
        copy = model.clone()
        for name, parameter in self.parameters.items():
            value = copy.graph.initializers[name]
            assert value.const_value is not None
            before = value.const_value.numpy()
            after = parameter.detach().contiguous().numpy().astype(before.dtype).reshape(before.shape)
            if name in self.masks:
                after = np.where(before == 0, before, after)
            if not np.array_equal(before, after):
                value.const_value = ir.Tensor(np.ascontiguousarray(after) + before.dtype.type(0), name=name)
        return copy


class Part:
    """Some of a module's nodes. Called with the graph's inputs by name and the start's value it gives the targets."""

    def __init__(self, module: Any, start: str | None, targets: Sequence[str], with_axes: Collection[str]) -> None:
        """`with_axes`: values that are known to have an axis at least."""
        places = {value: own for own, value in values(module).items()}
        nodes = {node.name: node for node in module.graph.nodes}
        first = None if start is None else nodes[places[start]]
        wanted = [nodes[places[name]] for name in targets]
        needed = _needed(wanted, first)
        graph = fx.Graph(tracer_cls=getattr(module.graph, "_tracer_cls", None))
        copies: dict[fx.Node, fx.Node] = {}
        self.inputs: list[str] = []
        self.targets = tuple(targets)
        named = values(module)
        for node in module.graph.nodes:
            if node is first or (node in needed and node.op == "placeholder"):
                copies[node] = graph.placeholder(node.name)
                self.inputs.append(named[node.name])
        for node in module.graph.nodes:
            if node in needed and node not in copies:
                copies[node] = graph.node_copy(node, lambda n: copies[n])
        graph.output(tuple(copies[node] for node in wanted))
        make_cheaper(graph, module, [own for node, own in copies.items() if named.get(node.name) in with_axes])
        self._module = fx.GraphModule(module, graph)
        self._module.eval()

    def __call__(self, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = self._module(*(given[name] for name in self.inputs))
        return dict(zip(self.targets, found, strict=True))


def _needed(wanted: Sequence[fx.Node], first: fx.Node | None) -> set[fx.Node]:
    """Everything that `wanted` is computed from, up to `first`."""
    found: set[fx.Node] = set()
    waiting = [node for node in wanted if node is not first]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        waiting += [other for other in node.all_input_nodes if other is not first]
    return found


def tensors(feeds: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.require(array, requirements=["C", "W"])) for name, array in feeds.items()}
