"""Which operator a product with a constant matrix is: MatMul or Gemm. It can decide what TensorRT does with it.

TensorRT has treated the two differently between versions (NVIDIA/TensorRT issue 2271), so a package can be made with
either:

    matmul   Gemm(x, W, b) → MatMul(x, αW') + βb
    gemm     MatMul(x, W) + b → Gemm(x, W, b), where x has rank 2 (no other can be a Gemm)

Weights are constants in the result, turned and scaled once; node names stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise.matmul_to_gemm import MatMulToGemm
from prunec.passes.canonicalise.tools import add_constant, constant, is_op, rename_output

Products = Literal["matmul", "gemm"]


def check_products(name: str | None) -> None:
    """Raise PrunecError PC444 for a form that there is not."""
    if name is not None and name not in get_args(Products):
        hint = f"one of {', '.join(get_args(Products))}, or leave it out to keep the model's own"
        raise PrunecError("PC444", f"products cannot be {name!r}", where="--products", hint=hint)


def with_products(model: ir.Model, form: str | None) -> ir.Model:
    """A copy of `model` in that form; `model` itself where None is asked for."""
    if form is None:
        return model
    result = model.clone()
    if form == "gemm":
        return MatMulToGemm()(result).model
    for node in list(_gemms(result)):
        _to_matmul(node)
    return result


def _gemms(model: ir.Model) -> Iterator[ir.Node]:
    """Those whose second operand, and third if there is one, are constants, and whose first is not turned."""
    for node in model.graph:
        if is_op(node, "Gemm") and not node.attributes.get_int("transA", 0):
            addend = node.inputs[2] if len(node.inputs) > 2 else None
            if constant(node.inputs[1]) is not None and (addend is None or constant(addend) is not None):
                yield node


def _to_matmul(node: ir.Node) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    weight, addend = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    assert weight is not None
    turned = weight.T if node.attributes.get_int("transB", 0) else weight
    alpha, beta = (float(node.attributes.get_float(name, 1.0) or 0.0) for name in ("alpha", "beta"))
    matrix = np.ascontiguousarray(turned * weight.dtype.type(alpha)) + weight.dtype.type(0)
    product = ir.Node(
        "", "MatMul", [node.inputs[0], add_constant(graph, f"{node.name}.weight", matrix)], name=node.name
    )
    graph.insert_before(node, product)
    last = product
    if addend is not None:
        bias = add_constant(graph, f"{node.name}.bias", addend * addend.dtype.type(beta))
        product.outputs[0].name = f"{node.outputs[0].name}.product"
        product.outputs[0].type, product.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        last = ir.Node("", "Add", [product.outputs[0], bias], name=f"{node.name}.add")
        graph.insert_before(node, last)
    rename_output(node.outputs[0], last.outputs[0])
    graph.remove(node, safe=True)
