"""What every canonicalisation step needs: read a constant, make a constant, take a node out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

STANDARD = ("", "ai.onnx")


def nodes_of(model: ir.Model) -> Iterator[ir.Node]:
    """Every node, subgraphs included, as a list so that the caller may change the graph."""
    return iter(list(ir.traversal.RecursiveGraphIterator(model.graph)))


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    return node is not None and node.domain in STANDARD and node.op_type in op_types


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array behind a constant value (an initializer that is no graph input), else None."""
    if value is None or value.const_value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value.numpy()


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else int(attribute.value)


def attribute_ints(node: ir.Node, name: str) -> list[int] | None:
    attribute = node.attributes.get(name)
    return None if attribute is None or attribute.is_ref() else list(attribute.value)


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value`, when nothing else does."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads the contents of `value`, when nothing else does; `Shape` only reads its shape."""
    readers = [use.node for use in value.uses() if not is_op(use.node, "Shape")]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer of `graph`; `name` gets a suffix if the graph already has it."""
    unique, count = name, 1
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_node(node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Every use of the node's outputs (no graph outputs) reads `values` instead; the node is gone."""
    for output, value in zip(node.outputs, values, strict=True):
        if output.uses():
            output.replace_all_uses_with(value)
    graph = node.graph
    assert graph is not None
    graph.remove(node, safe=True)


def rename_output(old: ir.Value, new: ir.Value) -> None:
    """`new` takes the place, the name and (if it has none) the shape and type of `old`, graph outputs included."""
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}_replaced"
    new.name = name
    new.shape = new.shape or old.shape
    new.type = new.type or old.type
