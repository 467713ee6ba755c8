"""Where a network can be taken apart: values that everything behind them depends on alone.

Between two such borders lies a block: a residual block, attention with its norm, a few layers in a row. A border is a
place in the order of the nodes that a single varying value crosses (`parameters.varying_values`; masks and positions
that are the same in the dense and the pruned model may cross everywhere). Graph outputs that are made on the way do not
count: they are targets of their block.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunec.graph.reads import reads
from prunec.recover.parameters import Trainable, varying_values

LAYERS = 2
"""Weights that a block has at least: a single layer was fitted to the dense model already."""
MOST_BLOCKS = 16


@dataclass(frozen=True)
class Block:
    """From the value `start` (None: the graph's inputs) to `targets`, the border behind it last; `trained` inside."""

    start: str | None
    targets: tuple[str, ...]
    trained: tuple[str, ...]


def borders(model: ir.Model) -> list[str]:
    """Names of floating-point values that alone carry what weights have to do with, in graph order."""
    varying = varying_values(model)
    nodes = list(model.graph)
    last = {value: i for i, node in enumerate(nodes) for value in reads(node) if value in varying}
    found: list[str] = []
    crossing: set[ir.Value] = set()
    for i, node in enumerate(nodes):
        crossing |= {value for value in node.outputs if last.get(value, -1) > i}
        crossing -= {value for value in reads(node) if last.get(value) == i}
        if len(crossing) == 1:
            (value,) = crossing
            name = value.name or ""
            if value.dtype == ir.DataType.FLOAT and value.producer() is node and name not in found:
                found.append(name)
    return found


def blocks(model: ir.Model, trained: Trainable, known: Collection[str]) -> list[Block]:
    """The whole model as at most `MOST_BLOCKS` blocks of at least `LAYERS` weights, between `known` borders."""
    made = {value.name or "": i for i, node in enumerate(model.graph) for value in node.outputs}
    read = _first_reads(model, trained)
    weights = [place for name, place in read.items() if name in trained.weights]
    outputs = [value.name or "" for value in model.graph.outputs if value.dtype == ir.DataType.FLOAT]
    least = max(LAYERS, -(-len(weights) // MOST_BLOCKS))
    found: list[Block] = []
    start: str | None = None
    first, end = 0, len(list(model.graph)) - 1
    for name, place in [*_ends([(name, made[name]) for name in borders(model) if name in known], weights), ("", end)]:
        left = sum(i > place for i in weights)
        if name and (sum(first <= i <= place for i in weights) < least or left < LAYERS):
            continue
        targets = [n for n in outputs if first <= made.get(n, -1) <= place and n != name]
        own = tuple(n for n, i in read.items() if first <= i <= place)
        found.append(Block(start, (*targets, *([name] if name else [])), own))
        start, first = name, place + 1
    return [block for block in found if block.targets]


def _ends(places: Sequence[tuple[str, int]], weights: Sequence[int]) -> list[tuple[str, int]]:
    """Of borders with no weight between them the last: behind the norm and the activation."""
    following = [*(place for _, place in places[1:]), math.inf][: len(places)]
    return [
        (name, place)
        for (name, place), end in zip(places, following, strict=True)
        if any(place < i <= end for i in weights)
    ]


def _first_reads(model: ir.Model, trained: Trainable) -> dict[str, int]:
    """The place of the first node that reads each trained initializer, in graph order."""
    names, found = set(trained.names), dict[str, int]()
    for i, node in enumerate(model.graph):
        for value in reads(node):
            if value.name in names:
                found.setdefault(value.name or "", i)
    return found
