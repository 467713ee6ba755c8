"""The rules: one function per operator.

A rule lowers its node, defines the outputs and returns the nodes that went into it. It raises Unsupported before it
emits anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from prunec.backends.cpu.lower import indexed
from prunec.backends.cpu.lower.computed_products import matmul
from prunec.backends.cpu.lower.elementwise import ELEMENTWISE
from prunec.backends.cpu.lower.light import elementwise, pool
from prunec.backends.cpu.lower.moves import (
    concat,
    depth_to_space,
    expand,
    gather,
    reshape,
    same,
    slice_,
    space_to_depth,
    split,
    tile,
    transpose,
)
from prunec.backends.cpu.lower.padding import pad
from prunec.backends.cpu.lower.products import lower_conv, lower_gemm
from prunec.backends.cpu.lower.recurrent import recurrent
from prunec.backends.cpu.lower.resize import resize
from prunec.backends.cpu.lower.rows import REDUCTIONS, global_pool, layer_norm, reduction, softmax
from prunec.backends.cpu.lower.state import State, Unsupported
from prunec.backends.cpu.lower.transposed_convolution import conv_transpose

Rule = Callable[[State, ir.Node], Sequence[ir.Node]]


def _refused(reason: str) -> Rule:
    """What is spelled out in other operators before, except where it cannot be."""

    def rule(state: State, node: ir.Node) -> Sequence[ir.Node]:
        raise Unsupported(reason)

    return rule


RULES: dict[str, Rule] = {
    "Conv": lower_conv, "ConvTranspose": conv_transpose, "Gemm": lower_gemm, "MatMul": matmul,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent), "MaxPool": pool, "AveragePool": pool,
    "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, **dict.fromkeys(REDUCTIONS, reduction),
    "Softmax": softmax, "LayerNormalization": layer_norm, "Reshape": reshape, "Flatten": reshape, "Squeeze": reshape,
    "Unsqueeze": reshape, "Identity": same, "Dropout": same, "Transpose": transpose, "Slice": slice_, "Split": split,
    "Expand": expand, "Tile": tile, "Concat": concat, "Gather": gather, "Pad": pad, "Resize": resize,
    "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth, "GatherND": indexed.gather_nd,
    "GatherElements": indexed.gather_elements, "ScatterND": indexed.scatter_nd,
    "ScatterElements": indexed.scatter_elements, "ArgMax": indexed.arg_extreme, "ArgMin": indexed.arg_extreme,
    "CumSum": indexed.cum_sum, "TopK": indexed.top_k, "OneHot": indexed.one_hot, "Trilu": indexed.trilu,
    "Einsum": _refused("an Einsum with a diagonal, with axes that are broadcast, or of integers"),
}  # fmt: skip
"""Operators of the default domain; the elementwise ones are in `elementwise.ELEMENTWISE`."""


def rule_of(node: ir.Node) -> Rule | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    return elementwise if node.op_type in ELEMENTWISE else RULES.get(node.op_type)
