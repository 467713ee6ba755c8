"""Cut dead channels out of a model: slice weights, rewrite shape constants and attributes, update the shapes.

1. Every use of an initializer keeps, per axis, the positions whose class is alive. Uses that keep the same positions
   go on sharing one tensor; others get their own copy.
2. Every node's rule rewrites what depends on lengths or positions (`Rule.cut`).
3. The shapes of the activations are updated, branches of experts that are gone leave (`drop_experts`), and
   initializers without users are dropped.

Large weights that lie in a file stay there: the cut model reads and slices them when its numbers are asked for.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.graph.mapped import compressed
from prunec.graph.rules import rule_for
from prunec.graph.rules.cut import Cut
from prunec.graph.shapes import is_constant
from prunec.passes.drop_experts import drop_experts


def slice_channels(model: ir.Model, analysis: Analysis, alive: np.ndarray) -> ir.Model:
    """New model without the classes that are not `alive` (bool per class id). The input model is not changed.

    Raises:
        PrunecError PC202: an axis would be left without any position.
    """
    if analysis.empty_axes(alive):
        raise PrunecError(
            "PC202", "the cut leaves an axis without channels", hint="keep at least one channel of each part"
        )
    cut_model = model.clone()
    slicer = _Slicer(cut_model.graph, analysis, alive)
    slicer.rewrite_nodes()
    slicer.slice_initializers()
    slicer.update_shapes()
    drop_experts(cut_model, analysis.vanishing, alive)
    slicer.drop_unused()
    return cut_model


class _Slicer:
    def __init__(self, graph: ir.Graph, analysis: Analysis, alive: np.ndarray) -> None:
        self.graph = graph
        self.analysis = analysis
        self.alive = alive
        self.taken = {v.name for node in graph.all_nodes() for v in node.outputs} | set(graph.initializers)
        self.taken |= {value.name for value in graph.inputs}

    # -- nodes --------------------------------------------------------------------------------------------------
    def kept(self, value: ir.Value | None, axis: int) -> np.ndarray | None:
        axes = self.analysis.value_axes.get(value.name or "") if value is not None else None
        if axes is None or axes[axis] is None:
            return None
        mask: np.ndarray = self.alive[axes[axis]]
        return None if mask.all() else mask

    def positions(self, value: ir.Value | None) -> np.ndarray | None:
        ids = self.analysis.positions.get(value.name or "") if value is not None else None
        return None if ids is None or self.alive[ids].all() else self.alive[ids]

    def rewrite_nodes(self) -> None:
        cut = Cut(self.kept, self.add_constant, self.positions, self.insert_before)
        for node in list(self.graph):
            rule_for(node).cut(node, cut)

    def unique(self, base: str) -> str:
        name, number = base, 0
        while name in self.taken:
            number += 1
            name = f"{base}.cut{number}" if number > 1 else f"{base}.cut"
        self.taken.add(name)
        return name

    def add_constant(self, base: str, array: np.ndarray) -> ir.Value:
        return self.add_tensor(base, ir.tensor(array))

    def add_tensor(self, base: str, tensor: ir.TensorProtocol) -> ir.Value:
        name = self.unique(base)
        tensor.name = name
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape)
        self.graph.register_initializer(value)
        return value

    def insert_before(
        self, node: ir.Node, op_type: str, inputs: list[ir.Value], attributes: dict[str, ir.Attr]
    ) -> ir.Value:
        name = self.unique(f"{node.name}.{op_type}")
        new = ir.node(op_type, inputs, attributes=attributes, name=name)
        new.outputs[0].name = name
        self.graph.insert_before(node, new)
        return new.outputs[0]

    # -- initializers -------------------------------------------------------------------------------------------
    def slice_initializers(self) -> None:
        users: dict[str, list[tuple[ir.Node, int]]] = defaultdict(list)
        for node in self.graph:
            for index, value in enumerate(node.inputs):
                if is_constant(value) and (node.name or "", index) in self.analysis.use_axes:
                    assert value is not None
                    users[value.name or ""].append((node, index))
        for name, places in users.items():
            self._slice_one(name, places)

    def _slice_one(self, name: str, places: list[tuple[ir.Node, int]]) -> None:
        """One new tensor per distinct set of kept positions."""
        variants: dict[bytes, tuple[list[tuple[int, np.ndarray]], list[tuple[ir.Node, int]]]] = {}
        for node, index in places:
            axes = self.analysis.use_axes[node.name or "", index]
            masks = [
                (a, self.alive[ids]) for a, ids in enumerate(axes) if ids is not None and not self.alive[ids].all()
            ]
            key = b"".join(bytes([a]) + np.packbits(mask).tobytes() for a, mask in masks)
            variants.setdefault(key, (masks, []))[1].append((node, index))
        source = self.graph.initializers[name]
        whole = len(list(source.uses())) == sum(len(p) for _, p in variants.values())
        for masks, members in variants.values():
            if not masks:
                continue
            assert source.const_value is not None
            if whole and len(variants) == 1:
                source.const_value = compressed(source.const_value, masks, name)
                source.shape = ir.Shape(source.const_value.shape.numpy())
                continue
            new = self.add_tensor(name, compressed(source.const_value, masks, name))
            for node, index in members:
                node.replace_input_with(index, new)

    # -- tidy ---------------------------------------------------------------------------------------------------
    def update_shapes(self) -> None:
        for node in self.graph:
            for output in node.outputs:
                axes = self.analysis.value_axes.get(output.name or "")
                if axes is None or output.shape is None:
                    continue
                new = [d if m is None else int(self.alive[m].sum()) for d, m in zip(output.shape, axes, strict=True)]
                output.shape = ir.Shape(new)

    def drop_unused(self) -> None:
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]
