"""Chains of elementwise operators that are computed while the element is in a register.

A cluster starts at a value (the sum of a convolution, or the first elementwise operator) and takes in consumers for as
long as exactly one of its values is needed outside. So SiLU, GELU written out, and the addition of a shortcut that is
computed earlier all end in the epilogue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from prunec.backends.cpu.expression import Expression, const, operand
from prunec.backends.cpu.lower.elementwise import ELEMENTWISE
from prunec.backends.cpu.lower.state import Unsupported, dtype_of, shape_of
from prunec.graph.shapes import constant
from prunec.graph.weights import QUANTISERS

_MOST_NODES = 24
_MOST_OPERANDS = 6


@dataclass(frozen=True)
class Cluster:
    """`value` of the `nodes` in terms of input 0 (the start) and the `operands` (inputs 1, 2, …)."""

    value: Expression
    output: ir.Value
    operands: tuple[ir.Value, ...]
    nodes: tuple[ir.Node, ...]


class _Growth:
    def __init__(self, known: Callable[[ir.Value | None], bool], keeps_dtype: bool, to_bytes: bool) -> None:
        self.known = known
        self.to_bytes = to_bytes
        self.keeps_dtype = keeps_dtype
        self.expressions: dict[str, Expression] = {}
        self.operands: list[ir.Value] = []
        self.nodes: list[ir.Node] = []

    def argument(self, value: ir.Value | None) -> Expression | None:
        """What a node of the cluster reads: a value of the cluster, a number, or an operand."""
        if value is None:
            return None
        name = value.name or ""
        if name in self.expressions:
            return self.expressions[name]
        data = constant(value)
        if data is not None and data.size == 1:
            return const(data.reshape(-1)[0].item(), dtype_of(value))
        names = [operand_.name for operand_ in self.operands]
        if name not in names:
            self.operands.append(value)
            names.append(name)
        return operand(1 + names.index(name), dtype_of(value))

    def add(self, node: ir.Node) -> None:
        arguments = [self.argument(value) for value in node.inputs]
        self.expressions[node.outputs[0].name or ""] = ELEMENTWISE[node.op_type](node, arguments)
        self.nodes.append(node)

    def can_add(self, node: ir.Node, shape: tuple[int, ...]) -> bool:
        if node.domain not in ("", "ai.onnx") or node.op_type not in ELEMENTWISE or len(self.nodes) >= _MOST_NODES:
            return False
        if node.op_type in QUANTISERS and not self.to_bytes:
            return False
        if node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            return node.inputs[0].name in self.expressions
        if any(v is not None and v.name not in self.expressions and not self.known(v) for v in node.inputs):
            return False
        read = node.inputs[:1] if node.op_type in QUANTISERS else node.inputs
        fresh = {v.name for v in read if v is not None and v.name not in self.expressions}
        fresh -= {v.name for v in self.operands}
        if self.keeps_dtype and dtype_of(node.outputs[0]) != "float32":
            return False
        return shape_of(node.outputs[0]) == shape and len(self.operands) + len(fresh) <= _MOST_OPERANDS


def grow(
    start: ir.Value, known: Callable[[ir.Value | None], bool], root: ir.Node | None = None, *, to_bytes: bool = False
) -> Cluster:
    """The largest cluster behind `start`; with `root` (elementwise) it begins with that node, and has no input 0.

    `to_bytes`: the largest that ends with a quantiser, if one does. `known` says whether a value exists before the
    cluster runs. Raises Unsupported from the rule of `root`.
    """
    growth = _Growth(known, keeps_dtype=root is None, to_bytes=to_bytes)
    if root is not None:
        growth.add(root)
    else:
        growth.expressions[start.name or ""] = operand(0, dtype_of(start))
    shape = shape_of(start)
    members = {start.name or "": start}
    best = _finished(growth, start)
    while True:
        pending = [value for value in members.values() if _leaves(value, growth.nodes)]
        if len(pending) == 1 and not (to_bytes and _is_quantised(best.output) and not _is_quantised(pending[0])):
            best = _finished(growth, pending[0])
        following = next((n for value in pending for n in _users(value) if _fits(growth, n, shape)), None)
        if following is None:
            return best
        try:
            growth.add(following)
        except Unsupported:
            return best
        members[following.outputs[0].name or ""] = following.outputs[0]


def _is_quantised(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "QuantizeLinear"


def _finished(growth: _Growth, output: ir.Value) -> Cluster:
    return Cluster(growth.expressions[output.name or ""], output, tuple(growth.operands), tuple(growth.nodes))


def _users(value: ir.Value) -> list[ir.Node]:
    return [node for node, _ in value.uses()]


def _leaves(value: ir.Value, nodes: list[ir.Node]) -> bool:
    """Whether somebody outside the cluster needs the value."""
    return value.is_graph_output() or any(node not in nodes for node in _users(value))


def _fits(growth: _Growth, node: ir.Node, shape: tuple[int, ...]) -> bool:
    try:
        return node not in growth.nodes and growth.can_add(node, shape)
    except Unsupported:
        return False
