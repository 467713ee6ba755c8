"""A partly known vector of dimensions → Concat of constants and of reads of only its dynamic entries.

Shape(x) = [N, 64, h, w], read as a whole, would change when the 64 channels are cut. So every reader but Gather,
Slice and Shape (whose results are handled themselves) gets Concat([N], [64], [h, w]) instead. The dynamic entries are
read from where they first appear, a graph input if possible; so whole chains of shape arithmetic fall away. An entry
that is no tensor's dimension (2·N, say) is read from the original vector.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.facts import Facts
from prunec.passes.canonicalise.partial import Partial
from prunec.passes.canonicalise.tools import add_constant, is_op, nodes_of

_READS = ("Gather", "Slice", "Shape")
_SHAPE_RANGE_OPSET = 15  # Shape has start and end since


def split_vectors(model: ir.Model, facts: Facts) -> int:
    """Returns how many vectors were replaced."""
    split: _Splitter | None = None
    count = 0
    for node in nodes_of(model):
        if len(node.outputs) != 1 or not _is_mixed(facts.partials.get(node.outputs[0])):
            continue
        users = [use for use in node.outputs[0].uses() if not is_op(use.node, *_READS)]
        if not users or node.outputs[0].is_graph_output() or _is_split(node, facts):
            continue
        split = split or _Splitter(model, facts)
        vector = split.vector(node)
        for use in users:
            use.node.replace_input_with(use.idx, vector)
        count += 1
    return count


def _is_mixed(value: Partial | None) -> bool:
    if value is None or value.is_scalar or value.is_known:
        return False
    return any(not isinstance(entry, str) for entry in value.entries)


def _is_split(node: ir.Node, facts: Facts) -> bool:
    """Already a Concat of constants and reads."""
    if not is_op(node, "Concat"):
        return False
    parts = [facts.partial(value) for value in node.inputs]
    return all(part is not None and not _is_mixed(part) for part in parts)


class _Splitter:
    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self.facts = facts
        self.opset = model.opset_imports.get("", 0)
        self.order = {value: index for index, value in enumerate(facts.shapes)}
        self.inputs = set(model.graph.inputs)
        self.sources: dict[str, tuple[ir.Value, int]] = {}
        for value, shape in facts.shapes.items():
            for axis, dim in enumerate(shape or ()):
                if isinstance(dim, str):
                    self.sources.setdefault(dim, (value, axis))

    def vector(self, node: ir.Node) -> ir.Value:
        """The Concat that stands for the output of `node`, with what it needs inserted behind `node`."""
        output, graph = node.outputs[0], node.graph
        assert isinstance(graph, ir.Graph)
        value = self.facts.partials[output]
        dtype = output.dtype or ir.DataType.INT64
        nodes: list[ir.Node] = []
        parts: list[ir.Value] = []
        for start, end in self._runs(node, value):
            name = f"{output.name}_{start}"
            if not isinstance(value.entries[start], str):
                array = np.array(value.entries[start:end], dtype.numpy())
                parts.append(add_constant(graph, f"{name}_static", array))
                continue
            nodes += self._read(graph, node, start, end, name, dtype)
            parts.append(nodes[-1].outputs[0])
        if len(parts) > 1:
            nodes.append(_node("Concat", parts, [ir.AttrInt64("axis", 0)], f"{output.name}_split"))
            _describe(nodes[-1], dtype, len(value.entries))
        graph.insert_after(node, nodes)
        return nodes[-1].outputs[0]

    def _runs(self, node: ir.Node, value: Partial) -> list[tuple[int, int]]:
        """Ranges of entries that one constant, or one read, can give."""
        runs: list[tuple[int, int]] = []
        for position, entry in enumerate(value.entries):
            if runs and self._continues(node, value.entries[position - 1], entry):
                runs[-1] = (runs[-1][0], position + 1)
            else:
                runs.append((position, position + 1))
        return runs

    def _continues(self, node: ir.Node, before: object, entry: object) -> bool:
        if not isinstance(before, str) or not isinstance(entry, str):
            return not isinstance(before, str) and not isinstance(entry, str)
        first, second = self._source(node, before), self._source(node, entry)
        return first is not None and second is not None and second == (first[0], first[1] + 1)

    def _source(self, node: ir.Node, symbol: str) -> tuple[ir.Value, int] | None:
        """(value, axis) with that dimension, computed before `node` and visible there."""
        value, axis = self.sources.get(symbol, (None, 0))
        if value is None or value.is_initializer():
            return None
        if value in self.inputs:
            return value, axis
        producer = value.producer()
        is_before = self.order[value] < self.order[node.outputs[0]]
        return (value, axis) if is_before and producer is not None and producer.graph is node.graph else None

    def _read(
        self, graph: ir.Graph, node: ir.Node, start: int, end: int, name: str, dtype: ir.DataType
    ) -> list[ir.Node]:
        """Nodes whose last gives entries start … end of the vector that `node` computes."""
        entry = self.facts.partials[node.outputs[0]].entries[start]
        source = self._source(node, str(entry)) if dtype == ir.DataType.INT64 else None
        if source is None:
            return [_gather(graph, node.outputs[0], range(start, end), name, dtype)]
        value, axis = source
        if self.opset >= _SHAPE_RANGE_OPSET:
            limits = [ir.AttrInt64("start", axis), ir.AttrInt64("end", axis + end - start)]
            read = _node("Shape", [value], limits, f"{name}_read")
            _describe(read, dtype, end - start)
            return [read]
        shape = _node("Shape", [value], [], f"{name}_shape")
        _describe(shape, dtype, len(self.facts.shapes[value] or ()))
        return [shape, _gather(graph, shape.outputs[0], range(axis, axis + end - start), name, dtype)]


def _gather(graph: ir.Graph, vector: ir.Value, positions: range, name: str, dtype: ir.DataType) -> ir.Node:
    indices = add_constant(graph, f"{name}_index", np.array(positions, np.int64))
    node = _node("Gather", [vector, indices], [ir.AttrInt64("axis", 0)], f"{name}_read")
    _describe(node, dtype, len(positions))
    return node


def _node(op_type: str, inputs: list[ir.Value], attributes: list[ir.Attr], name: str) -> ir.Node:
    node = ir.Node("", op_type, inputs, attributes, name=name)
    node.outputs[0].name = name
    return node


def _describe(node: ir.Node, dtype: ir.DataType, size: int) -> None:
    value = node.outputs[0]
    value.type, value.shape = ir.TensorType(dtype), ir.Shape([size])
