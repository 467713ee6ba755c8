"""The rules: one function per operator.

A rule lowers its node, defines the outputs and returns the nodes that went into it. It raises Unsupported before it
emits anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from prunec.backends.cpu.lower import indexed, int8_moves
from prunec.backends.cpu.lower.computed_products import matmul
from prunec.backends.cpu.lower.elementwise import ELEMENTWISE
from prunec.backends.cpu.lower.int8_elementwise import chain_in_bytes
from prunec.backends.cpu.lower.int8_layers import in_bytes_if_held
from prunec.backends.cpu.lower.int8_moves import on_bytes
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
from prunec.backends.cpu.lower.quantisers import dequantiser_rule, quantiser_rule
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
    "Conv": in_bytes_if_held(lower_conv), "ConvTranspose": conv_transpose, "Gemm": in_bytes_if_held(lower_gemm),
    "MatMul": in_bytes_if_held(matmul), "QuantizeLinear": quantiser_rule(elementwise),
    "DequantizeLinear": dequantiser_rule(elementwise),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent), "MaxPool": on_bytes(int8_moves.max_pool, pool),
    "AveragePool": pool, "GlobalMaxPool": global_pool, **dict.fromkeys(REDUCTIONS, reduction),
    "GlobalAveragePool": on_bytes(int8_moves.mean, global_pool), "ReduceMean": on_bytes(int8_moves.mean, reduction),
    "Softmax": softmax, "LayerNormalization": layer_norm,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), on_bytes(int8_moves.reshape, reshape)),
    **dict.fromkeys(("Identity", "Dropout"), on_bytes(int8_moves.same, same)),
    "Transpose": transpose, "Slice": slice_, "Split": split,
    "Expand": expand, "Tile": tile, "Concat": int8_moves.concat(concat), "Gather": gather, "Pad": pad,
    "Resize": on_bytes(int8_moves.resize, resize),
    "DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth, "GatherND": indexed.gather_nd,
    "GatherElements": indexed.gather_elements, "ScatterND": indexed.scatter_nd,
    "ScatterElements": indexed.scatter_elements, "ArgMax": indexed.arg_extreme, "ArgMin": indexed.arg_extreme,
    "CumSum": indexed.cum_sum, "TopK": indexed.top_k, "OneHot": indexed.one_hot, "Trilu": indexed.trilu,
    "Einsum": _refused("an Einsum with a diagonal, with axes that are broadcast, or of integers"),
}  # fmt: skip
"""Operators of the default domain; the elementwise ones are in `elementwise.ELEMENTWISE`."""


_ELEMENTWISE = chain_in_bytes(elementwise)


def rule_of(node: ir.Node) -> Rule | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    return RULES.get(node.op_type) or (_ELEMENTWISE if node.op_type in ELEMENTWISE else None)
