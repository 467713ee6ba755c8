"""Which layers TensorRT can run on sparse tensor cores, which ones it is expected to, and why not the others.

*Eligible* is a rule: an operator that TensorRT looks at (Conv, Gemm, MatMul), a constant weight, a reduction axis
that is a multiple of 4 long: axis 1 of a convolution's weight, axis −2 of a product's second operand (−1 of its
first), Gemm's by its transposition flags.

*Worthwhile* is a prediction from shapes, not a measurement. TensorRT times dense and sparse kernels and takes the
faster one; its engineers expect sparse ones to win where C_in and C_out are 256 or more, sooner for 3×3, which
multiplies C_in by 9 (NVIDIA/TensorRT issues 3849 and 4065), and not in products of a vector or a few rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from prunec.backends.base import Verdict
from prunec.backends.tensorrt.checker import GROUP, count, misplaced
from prunec.backends.tensorrt.weights import STANDARD, NotFound, find_weight
from prunec.graph.cost import FLOAT_TYPES, node_macs
from prunec.graph.shapes import dims

ENOUGH_CHANNELS = 256
ENOUGH_OUTPUTS = 128
"""Of a convolution with a kernel of several positions, whose inputs count once for each."""
ENOUGH_ROWS = 16
"""Rows of activations below which a product is bound by reading weights, as a matrix times a vector is."""
LOOKED_AT = frozenset({"Conv", "Gemm", "MatMul"})
OTHERS = frozenset({"ConvTranspose", "LSTM", "GRU", "RNN", "Einsum", "QLinearConv", "QLinearMatMul", "MatMulInteger"})
STORED = FLOAT_TYPES | {ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN}


def judge(model: ir.Model, *, counts: bool = True) -> list[Verdict]:
    """Every layer that multiplies by a weight, and products of two activations, in graph order.

    Those inside branches are not eligible. `counts=False` leaves the weights unread.
    """
    return list(_judge(model, counts))


def _judge(model: ir.Model, counts: bool) -> Iterator[Verdict]:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        is_looked_at = node.domain in STANDARD and node.op_type in LOOKED_AT
        if not (is_looked_at or node_macs(node) or (node.op_type in OTHERS and node.domain in STANDARD)):
            continue
        if node.graph is not model.graph:
            yield _dense(node, "", "it is inside a branch or a loop, prunec prunes the main graph only")
        elif is_looked_at:
            yield _verdict(node, counts)
        else:
            yield _dense(
                node, "", f"TensorRT looks for 2:4 weights in Conv, Gemm and MatMul only, this is {node.op_type}"
            )


def _verdict(node: ir.Node, counts: bool) -> Verdict:
    index, axis, other = _roles(node)
    value = node.inputs[index] if index < len(node.inputs) else None
    found = find_weight(value)
    if isinstance(found, NotFound):
        return _dense(node, "" if value is None else value.name or "", found.reason, found.change)
    tensor, shape = found.value.name or "", [int(d) for d in found.tensor.shape.numpy()]
    if found.tensor.dtype not in STORED:
        return _dense(
            node, tensor, f"its weight is stored as {found.tensor.dtype.name}", "store it as FP32, FP16 or INT8"
        )
    if len(shape) < 2:
        return _dense(node, tensor, "its weight is a vector", "")
    stored = found.order[axis]
    channels = shape[stored]
    outputs = shape[found.order[other]]
    groups = node.attributes.get_int("group", 1) or 1 if node.op_type == "Conv" else 1
    positions = math.prod(shape[2:]) if node.op_type == "Conv" else 1
    base = Verdict(
        node=_name(node), op=node.op_type, tensor=tensor, axis=stored, inputs=channels, outputs=outputs // groups,
        positions=positions, rows=_rows(node, outputs), macs=node_macs(node), count=None, eligible=False,
        worthwhile=False, reason="", change="",
    )  # fmt: skip
    if channels % GROUP:
        reason = f"{channels} input channels are no multiple of {GROUP}"
        what = f"pad them with zeros to {-(-channels // GROUP) * GROUP}, or widen the layer before"
        return replace(base, reason=reason, change=what if groups == 1 else "")
    doubt = _doubt(base, groups)
    array = np.asarray(found.tensor.numpy()) if counts else None
    zeros = None if array is None else count(array, stored, found.zero)
    flaw = None if array is None or zeros is None else misplaced(array, stored, zeros, found.zero)
    said = [words for words in (flaw, doubt) if words is not None]
    reason, change = ("; ".join(parts) for parts in zip(*said, strict=True)) if said else ("", "")
    return replace(base, count=zeros, eligible=True, worthwhile=doubt is None, reason=reason, change=change)


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or ""


def _roles(node: ir.Node) -> tuple[int, int, int]:
    """Which input is the weight, its axis that is summed over, and that of the outputs."""
    if node.op_type == "Conv":
        return 1, 1, 0
    if node.op_type == "Gemm":
        second = find_weight(node.inputs[1])
        if isinstance(second, NotFound) and not isinstance(find_weight(node.inputs[0]), NotFound):
            return (0, 0, 1) if node.attributes.get_int("transA", 0) else (0, 1, 0)
        return (1, 1, 0) if node.attributes.get_int("transB", 0) else (1, 0, 1)
    second = find_weight(node.inputs[1])
    if isinstance(second, NotFound) and not isinstance(find_weight(node.inputs[0]), NotFound):
        return 0, -1, -2
    return 1, -2, -1


def _rows(node: ir.Node, outputs: int) -> int | None:
    """Values of the output over its channels, None where a length is dynamic."""
    shape = dims(node.outputs[0])
    if shape is None:
        return None
    lengths = [d for d in shape if isinstance(d, int)]
    return math.prod(lengths) // max(outputs, 1) if len(lengths) == len(shape) else None


def _doubt(layer: Verdict, groups: int) -> tuple[str, str] | None:
    """Why the dense kernel is expected to be faster, and what would change that; None where it is not."""
    assert layer.inputs is not None and layer.outputs is not None
    if groups > 1:
        return f"{groups} groups: dense kernels of grouped convolutions are expected to be faster", "use one group"
    wanted = ENOUGH_CHANNELS if layer.positions == 1 else ENOUGH_OUTPUTS
    if layer.inputs * layer.positions < ENOUGH_CHANNELS:
        have = f"{layer.inputs} input channels" + (f" × {layer.positions} positions" if layer.positions > 1 else "")
        return f"{have}, sparse kernels are expected to win from {ENOUGH_CHANNELS}", "leave it dense"
    if layer.outputs < wanted:
        return f"{layer.outputs} outputs, sparse kernels are expected to win from {wanted}", "leave it dense"
    if layer.rows is not None and layer.rows < ENOUGH_ROWS:
        many = "one row" if layer.rows == 1 else f"{layer.rows} rows"
        return f"{many} of activations: reading the weights decides, not arithmetic", "run larger batches"
    return None


def _dense(node: ir.Node, tensor: str, reason: str, change: str = "") -> Verdict:
    return Verdict(
        node=_name(node), op=node.op_type, tensor=tensor, axis=None, inputs=None, outputs=None, positions=1,
        rows=None, macs=node_macs(node), count=None, eligible=False, worthwhile=False, reason=reason, change=change,
    )  # fmt: skip
