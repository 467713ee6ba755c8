"""The constants of removed blocks (`centre_blocks`) go into a bias that is there already.

y = x + c, where nothing else reads x: c joins the bias of the norm that makes x, or of the layer whose output was added
to the stream last. That is for the end, after compensation: earlier, refitting that layer would take c out again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from prunec.graph.branches import Block
from prunec.graph.rules.base import given
from prunec.graph.shapes import constant, dims, is_constant
from prunec.passes.compensate.constants import set_constant

_BIAS = {"LayerNormalization": 2, "Conv": 2}


def fold_means(model: ir.Model, blocks: Sequence[Block]) -> None:
    """Fold, in place, what can be; the other constants stay additions."""
    outputs = {block.output for block in blocks}
    for node in list(model.graph):
        if node.op_type != "Add" or node.outputs[0].name not in outputs or not is_constant(node.inputs[1]):
            continue
        source, shift = node.inputs[0], constant(node.inputs[1])
        assert source is not None and shift is not None
        if _fold(model.graph, source, shift.astype(np.float64)):
            old = node.outputs[0]
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [], [old], [source])
    RemoveUnusedNodesPass()(model)


def _fold(graph: ir.Graph, value: ir.Value, shift: np.ndarray) -> bool:
    """Add `shift` to a bias that only `value` depends on; False where there is none."""
    node = value.producer()
    if node is None or len(list(value.uses())) != 1 or value.is_graph_output():
        return False
    index = _BIAS.get(node.op_type)
    if index is not None and given(node, index) and _is_own(node.inputs[index]):
        bias = constant(node.inputs[index])
        assert bias is not None
        if bias.size == shift.size:
            set_constant(graph, node, index, bias.astype(np.float64) + shift.reshape(bias.shape))
            return True
        return False
    if node.op_type != "Add":
        return False
    for position, operand in enumerate(node.inputs):
        bias = constant(operand)
        if operand is not None and bias is not None and _is_own(operand) and _fits(bias, shift, value):
            set_constant(graph, node, position, bias.astype(np.float64) + shift.reshape(bias.shape))
            return True
    return any(operand is not None and not is_constant(operand) and _fold(graph, operand, shift)
               for operand in node.inputs)  # fmt: skip


def _is_own(value: ir.Value | None) -> bool:
    return is_constant(value) and value is not None and len(list(value.uses())) == 1


def _fits(bias: np.ndarray, shift: np.ndarray, value: ir.Value) -> bool:
    """Whether both are one number per channel of the same axis."""
    rank = len(dims(value) or ())
    return bias.size == shift.size and _axis(bias.shape, rank) == _axis(shift.shape, rank)


def _axis(shape: tuple[int, ...], rank: int) -> int | None:
    """The one axis that is longer than 1, counted from the left in a tensor of `rank`."""
    long = [rank - len(shape) + axis for axis, length in enumerate(shape) if length > 1]
    return long[0] if len(long) == 1 else None
