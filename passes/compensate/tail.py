"""Where a layer's error is judged: behind its activation function, where the next layer sees it.

A ReLU hides half of an error, a sigmoid or a softmax nearly all of one in a large negative logit. The tail of a value
is the region of elementwise nodes that read nothing else but constants (`x·sigmoid(x)` is inside), if exactly one of
its values goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

UNARY = """Abs Celu Clip Elu Erf Exp Gelu HardSigmoid HardSwish LeakyRelu Log LogSoftmax Mish Neg Reciprocal Relu Selu
Sigmoid Softmax Softplus Softsign Sqrt Swish Tanh ThresholdedRelu"""
BINARY = "Add Div Max Min Mul PRelu Pow Sub"
ALLOWED = frozenset(UNARY.split()) | frozenset(BINARY.split())
MAX_NODES = 16


@dataclass(frozen=True)
class Tail:
    """`nodes` compute `output` from `input` and constants."""

    input: str
    nodes: tuple[ir.Node, ...]
    output: str


def find_tail(value: ir.Value) -> Tail | None:
    """The tail of a value, or None where there is none or it does not end in one place."""
    inside = {value}
    nodes: list[ir.Node] = []
    frontier = [value]
    while frontier and len(nodes) < MAX_NODES:
        for node in dict.fromkeys(use.node for use in frontier.pop(0).uses()):
            if node not in nodes and _belongs(node, inside):
                nodes.append(node)
                inside.add(node.outputs[0])
                frontier += [node.outputs[0], *(v for v in node.inputs if v in inside)]
    leaving = [v for v in inside if v.is_graph_output() or any(use.node not in nodes for use in v.uses())]
    if not nodes or len(leaving) != 1 or leaving[0] is value:
        return None
    return Tail(value.name or "", tuple(nodes), leaving[0].name or "")


def _belongs(node: ir.Node, inside: set[ir.Value]) -> bool:
    if node.op_type not in ALLOWED or node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
        return False
    inputs = [value for value in node.inputs if value is not None]
    return all(value in inside or (value.is_initializer() and not value.is_graph_input()) for value in inputs)
