"""The reference for an exact cut: the dense model with every dead channel multiplied by zero where it is consumed.

Zeroing weights alone would be wrong behind a bias or a batch norm, so the mask sits on the data input of each node
that sums over the channels, as an explicit `Mul` by a constant; nothing else changes. Where the data is quantised,
zero is the zero point of the consumer, and the mask is a `Where`. Where a mean over channels may lose some of them
(class C), the mean itself is part of what is cut: `mask_statistics` has its reference.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.passes.mask_statistics import constant, mask_constant, mask_statistics


def mask_channels(model: ir.Model, analysis: Analysis, alive: np.ndarray) -> ir.Model:
    """New model with masks of shape [1, …, L, …, 1] for the classes that are not `alive` (bool per class id)."""
    masked = model.clone()
    graph = masked.graph
    nodes = {node.name: node for node in graph}
    for number, consumer in enumerate(analysis.consumers):
        keep = alive[consumer.channels]
        if keep.all():
            continue
        node = nodes[consumer.node]
        data = node.inputs[consumer.data_index]
        assert data is not None and data.shape is not None
        name = f"prunec.masked.{number}"
        if (data.dtype or ir.DataType.FLOAT).is_floating_point():
            mask = mask_constant(graph, data, consumer.axis, keep, f"prunec.mask.{number}")
            mul = ir.node("Mul", [data, mask], name=name)
        elif data.dtype == ir.DataType.BOOL:
            shape = [len(keep) if axis == consumer.axis else 1 for axis in range(len(data.shape))]
            mul = ir.node("And", [data, constant(graph, f"prunec.mask.{number}", keep.reshape(shape))], name=name)
        else:
            shape = [len(keep) if axis == consumer.axis else 1 for axis in range(len(data.shape))]
            mask = constant(graph, f"prunec.mask.{number}", keep.reshape(shape))
            zero = node.inputs[index] if (index := consumer.zero_index) and index < len(node.inputs) else None
            if zero is None:
                zero = constant(graph, f"prunec.zero.{number}", np.zeros((), (data.dtype or ir.DataType.INT8).numpy()))
            mul = ir.node("Where", [mask, data, zero], name=name)
        mul.outputs[0].name = name
        mul.outputs[0].shape = data.shape
        mul.outputs[0].type = data.type
        graph.insert_before(node, mul)
        node.replace_input_with(consumer.data_index, mul.outputs[0])
    mask_statistics(masked, analysis, alive)
    return masked
