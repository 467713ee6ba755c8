"""A stream that is also an output of the model keeps its width there: a projection back, to begin with the identity.

An encoder answers with its own residual stream, and the width of an output is a promise to its users. So where that is
all that keeps a stream from being cut, y = x·I + 0 is put in front of the output. The model computes what it did; a
cut takes rows of I, and compensation then refits what is left to the dense model's outputs like any other layer.

The projection goes where it costs least on the way to the output: on a pooled vector rather than on every token, but
in front of what still has to be computed at full width (a division by the vector's length).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis, analyse
from prunec.graph.shapes import dims
from prunec.passes.mask_statistics import constant
from prunec.passes.rewire import insert_behind

PROJECTION = "prunec.projection"
"""Names of the nodes start with this."""
DYNAMIC_LENGTH = 64
"""What an axis of unknown length counts when places are compared."""

_THROUGH = frozenset("Add Sub Mul Div Neg Sqrt Tanh Relu Sigmoid Cast Clip ReduceL2 ReduceSum ReduceMax".split())


def project_outputs(model: ir.Model) -> ir.Model:
    """New model with a projection for every stream that only an output pins; the same model where there is none."""
    free = analyse(model, residual=True, pin_outputs=False)
    places: dict[str, int] = {}
    for output in model.graph.outputs:
        ids = _stream(free, output)
        place = None if ids is None else _cheapest(free, output, ids)
        if place is not None and ids is not None:
            places[place.name or ""] = len(ids)
    if not places:
        return model
    projected = model.clone()
    values = {value.name: value for node in projected.graph for value in node.outputs}
    for number, (name, width) in enumerate(places.items()):
        _insert(projected.graph, values[name], width, number)
    return projected


def drop_projections(model: ir.Model) -> None:
    """Take projections out, in place, whose stream was not cut after all."""
    graph = model.graph
    for add in [node for node in graph if (node.name or "").startswith(PROJECTION) and node.op_type == "Add"]:
        product = add.inputs[0].producer()  # type: ignore[union-attr]
        assert product is not None
        rows, columns = dims(product.inputs[1]) or (0, 0)
        if rows == columns:
            source, own = product.inputs[0], [product.inputs[1], add.inputs[1]]
            assert source is not None
            ir.convenience.replace_nodes_and_values(graph, add, [add, product], [], [add.outputs[0]], [source])
            for value in own:
                if value is not None and value.is_initializer() and not value.uses():
                    del graph.initializers[value.name or ""]


def _stream(analysis: Analysis, output: ir.Value) -> np.ndarray | None:
    """Class ids of the output's last axis if they are a free group under a statistic."""
    axes = analysis.value_axes.get(output.name or "")
    if not axes or axes[-1] is None or any(ids is not None for ids in axes[:-1]):
        return None
    free = [group.channels for group in analysis.groups if group.kind == "C" and group.pinned is None]
    return axes[-1] if free and np.isin(axes[-1], np.concatenate(free)).all() else None


def _cheapest(analysis: Analysis, output: ir.Value, ids: np.ndarray) -> ir.Value | None:
    """The earliest of the smallest values on which everything depends that this output knows of the stream."""
    order = {node: number for number, node in enumerate(output.graph or ())}
    inside: set[ir.Node] = set()
    frontier = {output}
    best = output if output.producer() is not None else None
    while best is not None:
        node = max((value.producer() for value in frontier), key=lambda n: -1 if n is None else order[n])
        if node is None or node.op_type not in _THROUGH or not _leads_inside(node, inside, output):
            break
        inside.add(node)
        tracked = [v for v in node.inputs if v is not None and _carries(analysis, v, ids)]
        frontier = {value for value in frontier if value.producer() is not node} | set(tracked)
        if any(value.producer() is None for value in frontier) or not frontier:
            break
        (only, *others) = frontier
        if not others and _size(only) <= _size(best):
            best = only
    return best


def _leads_inside(node: ir.Node, inside: set[ir.Node], output: ir.Value) -> bool:
    value = node.outputs[0]
    return all(use.node in inside for use in value.uses()) and (not value.is_graph_output() or value is output)


def _carries(analysis: Analysis, value: ir.Value, ids: np.ndarray) -> bool:
    axes = analysis.value_axes.get(value.name or "", ())
    return bool(axes) and axes[-1] is not None and np.array_equal(axes[-1], ids)


def _size(value: ir.Value) -> int:
    return math.prod(d if isinstance(d, int) else DYNAMIC_LENGTH for d in dims(value) or ())


def _insert(graph: ir.Graph, value: ir.Value, width: int, number: int) -> None:
    """value → value·I + 0, for all users of the value; a graph output keeps its name."""
    name = f"{PROJECTION}.{number}"
    dtype = np.dtype((value.dtype or ir.DataType.FLOAT).numpy())
    weight = constant(graph, f"{name}.weight", np.eye(width, dtype=dtype))
    bias = constant(graph, f"{name}.bias", np.zeros(width, dtype))

    def project(x: ir.Value) -> list[ir.Node]:
        product = ir.node("MatMul", [x, weight], name=name)
        shifted = ir.node("Add", [product.outputs[0], bias], name=f"{name}.add")
        for new in (product, shifted):
            new.outputs[0].name = f"{new.name}.out"
            new.outputs[0].type, new.outputs[0].shape = x.type, x.shape
        return [product, shifted]

    insert_behind(graph, value, project)
