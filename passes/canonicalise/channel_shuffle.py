"""Reshape → Transpose → Reshape that permutes one axis → Gather(axis, permutation).

The three nodes move every element of an index grid; if the result differs from the input only by a permutation along
one axis, that permutation is all they do. (Checked on the grid itself, with the dynamic axes at a small size.)
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.tools import (
    add_constant,
    attribute_ints,
    constant,
    is_op,
    nodes_of,
    only_user,
    rename_output,
)

_GRID_DYNAMIC = 2
_MAX_GRID = 1 << 22


class ChannelShuffle(ir.passes.InPlacePass):
    """Needs inferred shapes, equal at both ends, a static permuted axis, and no other reader in between."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = sum(_rewrite(node) for node in nodes_of(model) if is_op(node, "Transpose"))
        return ir.passes.PassResult(model, modified=count > 0)


def _rewrite(transpose: ir.Node) -> bool:
    first = transpose.inputs[0].producer() if transpose.inputs[0] is not None else None
    last = only_user(transpose.outputs[0])
    if not is_op(first, "Reshape") or not is_op(last, "Reshape"):
        return False
    assert first is not None and last is not None
    if only_user(first.outputs[0]) is None or not first.graph is transpose.graph is last.graph:
        return False
    data, output = first.inputs[0], last.outputs[0]
    if data is None or data.shape is None or output.shape is None or len(data.shape) < 2:
        return False
    if list(data.shape) != list(output.shape) or last.inputs[0] is not transpose.outputs[0]:
        return False
    found = _permutation(data.shape, constant(first.inputs[1]), attribute_ints(transpose, "perm"), first)
    if found is None:
        return False
    axis, order = found
    graph = last.graph
    assert isinstance(graph, ir.Graph)
    indices = add_constant(graph, f"{output.name}_order", order.astype(np.int64))
    gather = ir.Node("", "Gather", [data, indices], [ir.AttrInt64("axis", axis)], name=f"{last.name}_shuffle")
    gather.outputs[0].shape, gather.outputs[0].type = output.shape, output.type
    graph.insert_before(last, gather)
    rename_output(output, gather.outputs[0])
    for node in (last, transpose, first):
        graph.remove(node, safe=True)
    return True


def _permutation(
    shape: ir.Shape, target: np.ndarray | None, perm: list[int] | None, reshape: ir.Node
) -> tuple[int, np.ndarray] | None:
    """(axis, order) with result = take(input, order, axis), or None."""
    inner = reshape.outputs[0].shape
    if perm is None or target is None or inner is None:
        return None
    dynamic = {str(dim): _GRID_DYNAMIC for dim in shape if not isinstance(dim, int)}
    dims = [dim if isinstance(dim, int) else _GRID_DYNAMIC for dim in shape]
    if any(not isinstance(dim, int) and str(dim) not in dynamic for dim in inner):
        return None
    small = [dim if isinstance(dim, int) else dynamic[str(dim)] for dim in inner]
    small, dims = _shrink(small, dims)
    if math.prod(small) != math.prod(dims) or math.prod(dims) > _MAX_GRID:
        return None
    grid = np.arange(math.prod(dims)).reshape(dims)
    result = grid.reshape(small).transpose(perm).reshape(dims)
    for axis, dim in enumerate(shape):
        if not isinstance(dim, int) or dim < 2:
            continue
        stride = math.prod(dims[axis + 1 :])
        line = tuple(slice(None) if i == axis else 0 for i in range(len(dims)))
        order = result[line] // stride
        if sorted(order.tolist()) == list(range(dim)) and np.array_equal(result, np.take(grid, order, axis)):
            return axis, order
    return None


def _shrink(inner: list[int], outer: list[int]) -> tuple[list[int], list[int]]:
    """Equal trailing dimensions (H, W) of both shapes at size 2 at most: the permutation does not depend on them."""
    inner, outer = list(inner), list(outer)
    position = 1
    while position < min(len(inner), len(outer)) - 1 and inner[-position] == outer[-position]:
        inner[-position] = outer[-position] = min(inner[-position], _GRID_DYNAMIC)
        position += 1
    return inner, outer
