"""Blocks that can be removed whole: what lies between a value x and a later value y of the same shape that may be x.

    branch   y = x + f(x): without f, y is x. The branch is everything that only f needs.
    layer    attention and then feed-forward, each added to the stream: y is the stream behind both. Where norms follow
             the additions (post-norm), the layer takes its own norms along, which two branches would leave behind.

Found in the graph, whatever the names: an `Add` of two values of one shape, where one is computed from the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import onnx_ir as ir

from prunec.graph.cost import FLOAT_TYPES, node_macs
from prunec.graph.reads import reads
from prunec.graph.shapes import dims, is_constant

BlockKind = Literal["branch", "layer"]
_ATTENTION = frozenset(
    {"Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedMultiHeadAttention"}
)
_NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})


@dataclass(frozen=True)
class Block:
    """`output` may be replaced by `input` (names of values).

    `name`: that of the `Add` of a branch, or of both of a layer's. `branch`: the operand of the `Add` that goes.
    """

    name: str
    kind: BlockKind
    input: str
    output: str
    branch: str | None = None


def find_blocks(model: ir.Model) -> list[Block]:
    """All blocks, branches first, in the order of the graph. The model is canonical."""
    order = {node: number for number, node in enumerate(model.graph)}
    branches: list[tuple[ir.Node, ir.Value, ir.Value]] = []
    for node in model.graph:
        found = _branch(node, order)
        if found is not None:
            branches.append((node, *found))
    blocks = [
        Block(node.name or "", "branch", x.name or "", node.outputs[0].name or "", f.name or "")
        for node, x, f in branches
    ]
    return [*blocks, *_layers(branches, order)]


def _branch(node: ir.Node, order: Mapping[ir.Node, int]) -> tuple[ir.Value, ir.Value] | None:
    """(x, f) of an `Add` that adds a value to what was computed from it, with something to be saved in between."""
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return None
    a, b = node.inputs
    if a is None or b is None or a is b or is_constant(a) or is_constant(b):
        return None
    if dims(a) is None or not (dims(a) == dims(b) == dims(node.outputs[0])) or a.dtype not in FLOAT_TYPES:
        return None
    for x, f in ((a, b), (b, a)):
        between = _between(x, f, order)
        if between and any(node_macs(other) for other in between):
            return x, f
    return None


def _between(x: ir.Value, f: ir.Value, order: Mapping[ir.Node, int]) -> list[ir.Node]:
    """Nodes on the paths from x to f; none where f does not depend on x."""
    start = order.get(x.producer(), -1)  # type: ignore[arg-type]
    ancestors: list[ir.Node] = []
    seen: set[ir.Node] = set()
    waiting = [f]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in seen and order[node] > start:
            seen.add(node)
            ancestors.append(node)
            waiting += [value for value in node.inputs if value is not None]
    depends = {x}
    path: list[ir.Node] = []
    for node in sorted(ancestors, key=order.__getitem__):
        if any(value in depends for value in node.inputs):
            depends.update(node.outputs)
            path.append(node)
    return path if f in depends else []


def _layers(branches: list[tuple[ir.Node, ir.Value, ir.Value]], order: Mapping[ir.Node, int]) -> Iterator[Block]:
    """Attention and the branch after it, each followed by a norm: from the stream before to the stream behind both."""
    inputs = [x for _, x, _ in branches[1:]]
    for number, ((first, x, f), (second, middle, g)) in enumerate(pairwise(branches)):
        follower = inputs[number + 1] if number + 1 < len(inputs) else None
        end = follower if _is_norm_of(follower, second.outputs[0], order) else _normalised(second.outputs[0])
        if end is None or dims(end) != dims(x) or not _is_norm_of(middle, first.outputs[0], order):
            continue
        if _attends(x, f, order) and not _attends(middle, g, order):
            yield Block(f"{first.name}+{second.name}", "layer", x.name or "", end.name or "")


def _is_norm_of(value: ir.Value | None, source: ir.Value, order: Mapping[ir.Node, int]) -> bool:
    """Whether `value` comes from `source` with some arithmetic but no layer in between."""
    path = [] if value is None or value is source else _between(source, value, order)
    return bool(path) and not any(node_macs(node) for node in path)


def _normalised(value: ir.Value) -> ir.Value | None:
    """The output of the one norm node that alone reads `value`."""
    uses = list(value.uses())
    node = uses[0].node if len(uses) == 1 else None
    return node.outputs[0] if node is not None and node.op_type in _NORMS else None


def _attends(x: ir.Value, f: ir.Value, order: Mapping[ir.Node, int]) -> bool:
    return any(node.op_type in _ATTENTION for node in _between(x, f, order))


def live_nodes(model: ir.Model, removed: Collection[Block]) -> list[ir.Node]:
    """Nodes that the outputs still need when every removed block's output is its input, in graph order."""
    values = {value.name or "": value for node in model.graph for value in node.outputs}
    values |= {value.name or "": value for value in model.graph.inputs}
    stands_for = {values[block.output]: values[block.input] for block in removed}
    waiting = list(model.graph.outputs)
    live: set[ir.Node] = set()
    while waiting:
        value = waiting.pop()
        while value in stands_for:
            value = stands_for[value]
        node = value.producer()
        if node is not None and node not in live:
            live.add(node)
            waiting += [v for v in reads(node) if not is_constant(v)]
    return [node for node in model.graph if node in live]
