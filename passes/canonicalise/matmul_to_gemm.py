"""MatMul(x, W) + Add(b) → Gemm(x, W, b), for x [M, K], W [K, N] constant, b [N] constant."""

from __future__ import annotations

import onnx_ir as ir

from prunec.passes.canonicalise.tools import constant, is_op, nodes_of, only_user, rename_output


class MatMulToGemm(ir.passes.InPlacePass):
    """Off by default: only rank 2 can be a Gemm, and transformers' MatMuls have rank 3."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        count = sum(_rewrite(node) for node in nodes_of(model) if is_op(node, "MatMul"))
        return ir.passes.PassResult(model, modified=count > 0)


def _rewrite(matmul: ir.Node) -> bool:
    data, weight = matmul.inputs
    add = only_user(matmul.outputs[0])
    if data is None or data.shape is None or len(data.shape) != 2 or not is_op(add, "Add"):
        return False
    matrix = constant(weight)
    assert add is not None
    bias_value = next((value for value in add.inputs if value is not matmul.outputs[0]), None)
    bias = constant(bias_value)
    if matrix is None or bias is None or matrix.ndim != 2 or bias.shape != matrix.shape[1:]:
        return False
    gemm = ir.Node("", "Gemm", [data, weight, bias_value], name=matmul.name)
    graph = add.graph
    assert graph is not None and matmul.graph is graph
    graph.insert_before(add, gemm)
    rename_output(add.outputs[0], gemm.outputs[0])
    graph.remove([add, matmul], safe=True)
    return True
