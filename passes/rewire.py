"""Put something between a value and its readers."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir


def insert_behind(graph: ir.Graph, value: ir.Value, make: Callable[[ir.Value], list[ir.Node]]) -> ir.Value:
    """Everything that read `value` now reads what the last of the nodes gives that `make` builds from it: returned.

    A graph output keeps its name; `value` then gets another one.
    """
    users = list(value.uses())
    nodes = make(value)
    new = nodes[-1].outputs[0]
    new.type, new.shape = value.type, value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)
    for node, index in users:
        node.replace_input_with(index, new)
    if value.is_graph_output():
        position = list(graph.outputs).index(value)
        value.name, new.name = f"{new.name}.in", value.name
        graph.outputs[position] = new
    return new
