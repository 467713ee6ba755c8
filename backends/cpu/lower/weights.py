"""Weights of a layer: constants, or what constant integers stand for. Needs no code generator."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.graph.shapes import constant
from prunec.graph.weights import blocks_fit, dequantised, quantised_axis


def weights_of(value: ir.Value | None, dtype: type = np.float32) -> np.ndarray | None:
    """A constant, or the numbers that constant integers stand for, as `dtype`; None for what is computed."""
    found = constant(value)
    node = None if value is None or found is not None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
        return found
    integers, scale, *zero = (constant(given) for given in node.inputs)
    if integers is None or scale is None or not blocks_fit(node):
        return None
    return dequantised(integers, scale, zero[0] if zero else None, quantised_axis(node), dtype)
