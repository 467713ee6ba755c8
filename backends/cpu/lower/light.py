"""Elementwise chains and pools."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from prunec.backends.cpu.expression import operand
from prunec.backends.cpu.kernels.pool import Pool
from prunec.backends.cpu.lower.fuse import grow
from prunec.backends.cpu.lower.geometry import window_of
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import as_image

Lowered = Sequence[ir.Node]


def elementwise(state: State, node: ir.Node) -> Lowered:
    cluster = grow(node.outputs[0], state.is_known, node)
    inputs = [state.tensor(value) for value in cluster.operands]
    shape = shape_of(cluster.output)
    like = next((t for t in inputs if t.shape == shape and len(shape) == 4), None)
    y = state.result(cluster.output, like=like or state.plain((1,), "float32"))
    value = cluster.value.substitute({i + 1: operand(i, t.dtype) for i, t in enumerate(inputs)})
    state.pointwise(value, inputs, y, cluster.nodes)
    state.define(cluster.output, y)
    return cluster.nodes


def pool(state: State, node: ir.Node) -> Lowered:
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Unsupported("the positions of maxima")
    window = window_of(node)
    counts_border = node.attributes.get_int("count_include_pad", 0) != 0
    if node.attributes.get_int("ceil_mode", 0) != 0 and counts_border and node.op_type == "AveragePool":
        # How much of a window beyond the padding counts is answered differently by every runtime.
        raise Unsupported("an average that counts the border, with ceil_mode")
    x, y = state.tensor(node.inputs[0]), None
    shape = shape_of(node.outputs[0])
    if len(shape) == 3:
        x = as_image(x)
        image = state.image((*shape[:2], 1, shape[2]))
        y = image.view(shape, (*image.strides[:2], image.strides[3]))
    else:
        image = y = state.result(node.outputs[0])
    if x.strides[1] != 1:
        x = state.copy(x, state.image(x.shape))
    order = (0, 2, 3)
    kernel = Pool(
        kind="max" if node.op_type == "MaxPool" else "average",
        grid=(image.shape[0], image.shape[2], image.shape[3]), size=(x.shape[2], x.shape[3]),
        kernel=window.kernel, strides=window.strides, pads=window.pads[:2], dilations=window.dilations,
        channels=x.shape[1], x=x.access(order), y=image.access(order),
        counts_border=counts_border,
    )  # fmt: skip
    state.emit(kernel, [x.buffer, image.buffer], [node])
    state.define(node.outputs[0], y)
    return [node]
