"""Operator rules: how channel ids move through each operator, and what to rewrite when channels are cut.

One file per operator family. To support an operator, add its rule to a file here and its row to `RULES`; an operator
without a row pins every axis it touches. Rows for other domains are written "domain::Op".
"""

from __future__ import annotations

import functools
import importlib
from typing import Protocol

import onnx_ir as ir

from prunec.graph.flow import Flow
from prunec.graph.rules.cut import Cut


class Rule(Protocol):
    """What prunec knows about one operator."""

    def couple(self, node: ir.Node, flow: Flow) -> None:
        """Move, unite or pin the channel ids of `node`'s inputs and state those of its outputs."""

    def cut(self, node: ir.Node, cut: Cut) -> None:
        """Rewrite attributes and constant index inputs of `node` after channels were removed."""


_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitShift BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Elu Erf Exp
Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink
Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
_ELEMENTWISE = """Add And Div Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum
Where Xor"""
_REDUCE = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare ArgMax ArgMin"""
_CONTRIB_UNARY = "com.microsoft::Gelu com.microsoft::QuickGelu"
_CONTRIB_ELEMENTWISE = "com.microsoft::BiasGelu com.microsoft::FastGelu"

_FAMILIES: dict[str, str] = {
    "elementwise:Unary": f"{_UNARY} {_CONTRIB_UNARY}",
    "elementwise:Elementwise": f"{_ELEMENTWISE} {_CONTRIB_ELEMENTWISE}",
    "conv:Conv": "Conv",
    "conv:ConvTranspose": "ConvTranspose",
    "conv:FusedConv": "com.microsoft::FusedConv",
    "conv:QLinearConv": "QLinearConv",
    "conv:ConvInteger": "ConvInteger",
    "gemm:Gemm": "Gemm com.microsoft::FusedGemm",
    "gemm:QGemm": "com.microsoft::QGemm",
    "gemm:MatMul": "MatMul",
    "gemm:FusedMatMul": "com.microsoft::FusedMatMul",
    "gemm:QLinearMatMul": "QLinearMatMul",
    "gemm:MatMulInteger": "MatMulInteger",
    "quantise:Quantiser": """QuantizeLinear DequantizeLinear com.microsoft::QuantizeLinear
        com.microsoft::DequantizeLinear""",
    "quantise:DynamicQuantiser": "DynamicQuantizeLinear",
    "quantise:QLinearBinary": "com.microsoft::QLinearAdd com.microsoft::QLinearMul",
    "quantise:QLinearUnary": "com.microsoft::QLinearSigmoid com.microsoft::QLinearLeakyRelu",
    "quantise:QLinearSoftmax": "com.microsoft::QLinearSoftmax",
    "quantise:QLinearPool": "com.microsoft::QLinearGlobalAveragePool com.microsoft::QLinearAveragePool",
    "quantise:QLinearConcat": "com.microsoft::QLinearConcat",
    "quantise:QLinearReduceMean": "com.microsoft::QLinearReduceMean",
    "norm:BatchNorm": "BatchNormalization",
    "norm:InstanceNorm": "InstanceNormalization",
    "norm:OverAxes": """LayerNormalization RMSNormalization SimplifiedLayerNormalization Softmax LogSoftmax Hardmax
        LpNormalization CumSum""",
    "norm:AcrossChannels": "LRN GroupNormalization MeanVarianceNormalization",
    "pool:Pool": "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool",
    "pool:Sample": "GridSample RoiAlign MaxRoiPool",
    "unknown:Body": "If Loop Scan",
    "reduce:Reduce": _REDUCE,
    "reshape:Reshape": "Reshape Flatten Squeeze Unsqueeze",
    "move:Transpose": "Transpose",
    "move:Concat": "Concat",
    "move:Split": "Split",
    "move:Slice": "Slice",
    "move:Gather": "Gather",
    "move:Pad": "Pad",
    "scatter:GatherND": "GatherND",
    "scatter:ScatterND": "ScatterND",
    "scatter:GatherElements": "GatherElements",
    "scatter:ScatterElements": "ScatterElements Scatter",
    "scatter:TopK": "TopK",
    "scatter:NonZero": "NonZero",
    "scatter:ConstantOfShape": "ConstantOfShape",
    "routing:Equal": "Equal",
    "routing:OneHot": "OneHot",
    "experts:FusedExperts": "com.microsoft::MoE",
    "repeat:Expand": "Expand",
    "repeat:Tile": "Tile",
    "resize:Resize": "Resize Upsample",
    "resize:DepthToSpace": "DepthToSpace",
    "resize:SpaceToDepth": "SpaceToDepth",
    "shape:Shape": "Shape Size",
    "recurrent:Recurrent": "LSTM GRU RNN",
    "einsum:Einsum": "Einsum",
    "fused_norm:SkipNorm": """com.microsoft::SkipLayerNormalization com.microsoft::SkipSimplifiedLayerNormalization
        com.microsoft::SkipRMSNormalization""",
    "fused_norm:EmbedNorm": "com.microsoft::EmbedLayerNormalization",
    "attention_packed:PackedAttention": "com.microsoft::Attention",
    "attention_packed:QuantisedAttention": "com.microsoft::QAttention",
    "attention:FusedAttention": "Attention com.microsoft::MultiHeadAttention com.microsoft::GroupQueryAttention",
}
RULES: dict[str, str] = {op: target for target, ops in _FAMILIES.items() for op in ops.split()}


@functools.cache
def _load(target: str) -> Rule:
    module, name = target.split(":")
    rule: Rule = getattr(importlib.import_module(f"prunec.graph.rules.{module}"), name)()
    return rule


def rule_for(node: ir.Node) -> Rule:
    """The rule of an operator; `Unknown` (which pins) where there is none."""
    key = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
    return _load(RULES.get(key, "unknown:Unknown"))
