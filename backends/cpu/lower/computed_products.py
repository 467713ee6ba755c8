"""Products of two computed matrices; those with constant weights are in `products`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.kernels.base import Access
from prunec.backends.cpu.kernels.batch_matmul import BatchMatMul
from prunec.backends.cpu.lower.fuse import grow
from prunec.backends.cpu.lower.products import lower_matmul
from prunec.backends.cpu.lower.program import Tensor
from prunec.backends.cpu.lower.state import State, Unsupported, shape_of
from prunec.backends.cpu.lower.views import expanded
from prunec.backends.cpu.lower.weights import weights_of

Lowered = Sequence[ir.Node]


def matmul(state: State, node: ir.Node) -> Lowered:
    """With constant weights a product of family A; else a batch of products."""
    weight = weights_of(node.inputs[1])
    if weight is not None and weight.ndim == 2 and weight.dtype == np.float32 and len(shape_of(node.inputs[0])) >= 2:
        return lower_matmul(state, node, weight.T, None)
    a, b = state.tensor(node.inputs[0]), state.tensor(node.inputs[1])
    if a.dtype != "float32" or len(a.shape) < 2 or len(b.shape) < 2:
        raise Unsupported("a product of vectors or integers")
    cluster = grow(node.outputs[0], state.is_known)
    *batch, rows, columns = shape_of(node.outputs[0])
    depth = a.shape[-1]
    if b.strides[-1] != 1 and columns != 1:
        b = state.copy(b, state.plain(b.shape, b.dtype))
    y = state.plain(shape_of(cluster.output), "float32")
    operands = [state.tensor(v) for v in cluster.operands]
    held = [_vector_ready(state, expanded(t, (*batch, rows, columns))) for t in operands]
    kernel = BatchMatMul(
        batch=tuple(batch), rows=rows, columns=columns, depth=depth,
        a=_access(expanded(a, (*batch, rows, depth))), b=_access(expanded(b, (*batch, depth, columns))),
        y=_access(expanded(y, (*batch, rows, columns))), epilogue=cluster.value,
        operands=tuple(_access(t) for t in held), tile=_tile(state, rows, columns),
    )  # fmt: skip
    state.emit(kernel, [a.buffer, b.buffer, *(t.buffer for t in held), y.buffer], [node, *cluster.nodes])
    state.define(cluster.output, y)
    return [node, *cluster.nodes]


def _tile(state: State, rows: int, columns: int) -> tuple[int, int]:
    """Sums of 6 rows × 2 vectors in 16 registers, 12 × 2 in 32."""
    lanes = state.isa.lanes("float32")
    return min(rows, 12 if state.isa.registers >= 32 else 6), min(columns, 2 * lanes)


def _vector_ready(state: State, x: Tensor) -> Tensor:
    return x if x.strides[-1] in (0, 1) or x.shape[-1] == 1 else state.copy(x, state.plain(x.shape, x.dtype))


def _access(x: Tensor) -> Access:
    return Access(x.buffer.elements, x.offset, x.strides, x.dtype)
