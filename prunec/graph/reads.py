"""What a node needs of the graph around it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


def reads(node: ir.Node) -> list[ir.Value]:
    """Values of the surrounding graph that a node needs, those that its inner graphs capture included."""
    found = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        for graph in _graphs(attribute):
            inner = set(graph.inputs) | set(graph.initializers.values())
            for child in graph:
                inner |= set(child.outputs)
            captured = [value for child in graph for value in reads(child)] + list(graph.outputs)
            found += [value for value in captured if value not in inner]
    return list(dict.fromkeys(found))


def _graphs(attribute: ir.Attr) -> Iterable[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.value]
    return list(attribute.value) if attribute.type == ir.AttributeType.GRAPHS else []
