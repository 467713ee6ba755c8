"""What the generator makes of each layer: whether it has code for it, and how many of its blocks are zero now."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from prunec.backends.base import Count, Verdict
from prunec.graph.cost import node_macs
from prunec.graph.shapes import constant, dims

MULTIPLIED = frozenset({"Conv", "Gemm", "MatMul"})


def judge(model: ir.Model, rows: int) -> list[Verdict]:
    """Every layer that multiplies by a weight, for blocks of `rows` outputs × 1 input."""
    return list(_judge(model, rows))


def _judge(model: ir.Model, rows: int) -> Iterator[Verdict]:
    for node in model.graph:
        if not node_macs(node) and node.op_type not in MULTIPLIED:
            continue
        matrix = _matrix(node)
        reason = _reason(node, matrix, rows)
        outputs, columns = (None, None) if matrix is None else matrix.shape
        yield Verdict(
            node=node.name or "", op=node.op_type, tensor=_tensor(node), axis=None if matrix is None else _axis(node),
            inputs=columns, outputs=outputs, positions=1, rows=_pixels(node, outputs), macs=node_macs(node),
            count=None if matrix is None or reason else _count(matrix, rows), eligible=not reason,
            worthwhile=not reason, reason=reason, change="leave it dense" if reason else "",
        )  # fmt: skip


def _reason(node: ir.Node, matrix: np.ndarray | None, rows: int) -> str:
    if node.op_type not in MULTIPLIED:
        return f"no kernels for zeros in {node.op_type}"
    if matrix is None:
        return "its weight is computed"
    if node.op_type == "Conv" and (node.attributes.get_int("group", 1) or 1) == len(matrix) > 1:
        return "a depthwise convolution: nothing to skip"
    if len(matrix) % rows:
        return f"{len(matrix)} outputs are no multiple of {rows}"
    return ""


def _matrix(node: ir.Node) -> np.ndarray | None:
    """[outputs, everything that is summed over]."""
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or weight.ndim < 2:
        return None
    if node.op_type == "Conv":
        return weight.reshape(len(weight), -1)
    if weight.ndim != 2:
        return None
    is_transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0
    return weight if is_transposed else weight.T


def _axis(node: ir.Node) -> int:
    """Of the stored tensor: the outputs, which blocks run along."""
    is_first = node.op_type == "Conv" or (node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0)
    return 0 if is_first else 1


def _count(matrix: np.ndarray, rows: int) -> Count:
    blocks = (matrix != 0).reshape(len(matrix) // rows, rows, -1).sum(axis=1)
    valid = int(((blocks == 0) | (blocks == rows)).sum())
    negative = int((np.signbit(matrix) & (matrix == 0)).sum())
    zeros = 1 - int(np.count_nonzero(matrix)) / max(matrix.size, 1)
    return Count(units=blocks.size, valid=valid if zeros else 0, zeros=zeros, negative=negative)


def _tensor(node: ir.Node) -> str:
    value = node.inputs[1] if len(node.inputs) > 1 else None
    return "" if value is None else value.name or ""


def _pixels(node: ir.Node, outputs: int | None) -> int | None:
    shape = dims(node.outputs[0])
    if shape is None or not outputs or any(not isinstance(d, int) for d in shape):
        return None
    return math.prod(d for d in shape if isinstance(d, int)) // outputs
