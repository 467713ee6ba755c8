"""Reorder channels: every initializer that has them, no node. See `prunec.graph.orders` for why that is exact.

Uses of an initializer that are reordered alike go on sharing one tensor; others get their own copy. Large weights that
lie in a file stay there until their numbers are asked for.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.graph.mapped import taken
from prunec.graph.orders import moved
from prunec.graph.shapes import is_constant

Places = list[tuple[ir.Node, int]]
Picks = list[tuple[int, np.ndarray]]


def permute_channels(model: ir.Model, analysis: Analysis, source: np.ndarray) -> ir.Model:
    """New model in which channel class c holds what `source[c]` held (int64 per class). The input is not changed."""
    permuted = model.clone()
    users: dict[str, Places] = defaultdict(list)
    for node in permuted.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and is_constant(value) and (node.name or "", index) in analysis.use_axes:
                users[value.name or ""].append((node, index))
    for name, places in users.items():
        _reorder(permuted.graph, name, places, analysis, source)
    return permuted


def _reorder(graph: ir.Graph, name: str, places: Places, analysis: Analysis, source: np.ndarray) -> None:
    variants: dict[bytes, tuple[Picks, Places]] = {}
    for node, index in places:
        picks = []
        for axis, ids in enumerate(analysis.use_axes[node.name or "", index]):
            if ids is not None and (source[ids] != ids).any():
                picks.append((axis, moved(ids, source)))
        key = b"".join(bytes([axis]) + index.tobytes() for axis, index in picks)
        variants.setdefault(key, (picks, []))[1].append((node, index))
    value = graph.initializers[name]
    assert value.const_value is not None
    tensor = value.const_value
    is_whole = len(variants) == 1 and len(list(value.uses())) == len(places) and not value.is_graph_output()
    for number, (picks, members) in enumerate(variants.values()):
        if not picks:
            continue
        if is_whole:
            value.const_value = taken(tensor, picks, name)
            continue
        copy = f"{name}.order{number}"
        while copy in graph.initializers:
            copy += "_"
        new = ir.Value(name=copy, const_value=taken(tensor, picks, copy), type=value.type, shape=value.shape)
        graph.register_initializer(new)
        for node, index in members:
            node.replace_input_with(index, new)
