"""Unique names for all nodes and all values, subgraphs included; the model's own names where they are unique."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


class UniqueNames(ir.passes.InPlacePass):
    """First come first served: graph inputs, graph outputs, initializers, then node outputs in order.

    A name that is empty becomes the operator type (nodes) or the node's name (values); one that is taken gets the
    suffix `_2`, `_3`, …
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
        changed = 0
        names: set[str] = set()
        for node in nodes:
            if not node.name or node.name in names:
                node.name = _unique(node.name or node.op_type, names)
                changed += 1
            names.add(node.name)
        names = set()
        for value, fallback in _values(model, nodes):
            if not value.name or value.name in names:
                value.name = _unique(value.name or fallback, names)
                changed += 1
            names.add(value.name)
        return ir.passes.PassResult(model, modified=changed > 0)


def _unique(name: str, taken: set[str]) -> str:
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    return unique


def _values(model: ir.Model, nodes: list[ir.Node]) -> Iterator[tuple[ir.Value, str]]:
    """Each value once, with the name it gets when it has none. An omitted optional output stays nameless."""
    seen: set[ir.Value] = set()
    graphs = list(model.graphs())
    groups: list[tuple[ir.Value, str]] = []
    for graph in graphs:
        groups += [(value, "input") for value in graph.inputs]
        groups += [(value, "output") for value in graph.outputs]
        groups += [(value, "constant") for value in graph.initializers.values()]
    for node in nodes:
        groups += [(value, str(node.name)) for value in node.outputs if value.name or value.uses()]
    for value, fallback in groups:
        if value not in seen:
            seen.add(value)
            yield value, fallback
