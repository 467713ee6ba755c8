"""Add of a per-channel constant after a convolution → its bias.

Some exporters write every bias like this: Conv(x, W) + c with c of shape [1, C, 1, 1] or [C, 1, 1].
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.tools import add_constant, constant, is_op, nodes_of, only_reader, rename_output


class FoldBias(ir.passes.InPlacePass):
    """1. Conv or ConvTranspose, without bias or with a constant one, read by the Add alone; c is constant.

    2. The new bias is b + c, in the type of the weight.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = sum(_fold(node) for node in nodes_of(model) if is_op(node, "Add"))
        return ir.passes.PassResult(model, modified=count > 0)


def _fold(add: ir.Node) -> bool:
    for data, other in (add.inputs, add.inputs[::-1]):
        node = None if data is None else data.producer()
        if data is None or not is_op(node, "Conv", "ConvTranspose") or only_reader(data) is not add:
            continue
        assert node is not None
        shift, weight = _per_channel(constant(other), data), constant(node.inputs[1])
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        old = constant(bias)
        if shift is None or weight is None or (bias is not None and old is None) or node.graph is not add.graph:
            return False
        assert isinstance(node.graph, ir.Graph)
        total = (shift if old is None else old + shift).astype(weight.dtype)
        node.resize_inputs(3)
        node.replace_input_with(2, add_constant(node.graph, f"{node.name}_bias", total))
        rename_output(add.outputs[0], data)
        node.graph.remove(add, safe=True)
        return True
    return False


def _per_channel(array: np.ndarray | None, data: ir.Value) -> np.ndarray | None:
    """`array` as [C], if it only varies along axis 1 of `data`."""
    if array is None or data.shape is None or array.ndim > len(data.shape) or array.dtype.kind != "f":
        return None
    shape = (1,) * (len(data.shape) - array.ndim) + array.shape
    channels = data.shape[1]
    if (
        not isinstance(channels, int)
        or shape[1] not in (1, channels)
        or any(d != 1 for i, d in enumerate(shape) if i != 1)
    ):
        return None
    return np.array(np.broadcast_to(array.reshape(-1), (channels,)))
