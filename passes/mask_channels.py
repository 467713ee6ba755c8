"""The reference for an exact cut: the dense model with every dead channel multiplied by zero where it is consumed.

Zeroing weights alone would be wrong behind a bias or a batch norm, so the mask sits on the data input of each node
that sums over the channels, as an explicit `Mul` by a constant; nothing else changes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis


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
        shape = [1] * len(data.shape)
        shape[consumer.axis] = len(keep)
        dtype = (data.dtype or ir.DataType.FLOAT).numpy()
        mask = ir.Value(
            name=f"prunec.mask.{number}",
            const_value=ir.tensor(keep.astype(dtype).reshape(shape), name=f"prunec.mask.{number}"),
            type=ir.TensorType(data.dtype or ir.DataType.FLOAT),
            shape=ir.Shape(shape),
        )
        graph.register_initializer(mask)
        mul = ir.node("Mul", [data, mask], name=f"prunec.masked.{number}")
        mul.outputs[0].name = f"prunec.masked.{number}"
        mul.outputs[0].shape = data.shape
        mul.outputs[0].type = data.type
        graph.insert_before(node, mul)
        node.replace_input_with(consumer.data_index, mul.outputs[0])
    return masked
