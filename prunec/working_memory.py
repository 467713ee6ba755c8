"""How much memory a stage may keep beside the model: a share of the model, but enough to work with."""

from __future__ import annotations

import onnx_ir as ir

LEAST_BYTES = 8 * 1024**2


def working_bytes(model: ir.Model) -> int:
    """A quarter of the bytes of the model's weights, and `LEAST_BYTES` at least."""
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    return max(LEAST_BYTES, sum(tensor.nbytes for tensor in tensors if tensor is not None) // 4)
