"""Which layers TensorRT looks at, along which axis, and why not the others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from prunec.backends.base import Verdict
from prunec.backends.tensorrt.eligibility import judge
from tests.graph.builder import Builder
from tests.tensorrt.test_checker import sparse


def only(b: Builder, op: str) -> Verdict:
    (found,) = [verdict for verdict in judge(b.model()) if verdict.op == op]
    return found


def product(weight: np.ndarray, *, first: bool = False, turn: bool = False) -> Builder:
    """x · W or W · x, the weight behind a Transpose where `turn` says so."""
    b = Builder()
    name = b.const(np.swapaxes(weight, -1, -2).copy() if turn else weight)
    if turn:
        name = b.op("Transpose", [name], perm=[*range(weight.ndim - 2), weight.ndim - 1, weight.ndim - 2])
    rows = 64
    if first:
        x = b.input("x", [*weight.shape[:-2], weight.shape[-1], rows])
        b.output(b.op("MatMul", [name, x]))
    else:
        x = b.input("x", [*weight.shape[:-2], rows, weight.shape[-2]])
        b.output(b.op("MatMul", [x, name]))
    return b


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("shape", [(256, 320), (3, 256, 320)])
def test_the_second_operand_of_a_product_is_reduced_along_its_second_last_axis(
    shape: tuple[int, ...], turn: bool
) -> None:
    found = only(product(sparse(shape, len(shape) - 2), turn=turn), "MatMul")
    assert found.is_sparse and found.worthwhile
    assert (found.inputs, found.outputs) == (256, 320)
    assert found.axis == len(shape) - (1 if turn else 2)
    assert not only(product(sparse(shape, len(shape) - 1), turn=turn), "MatMul").is_sparse


def test_the_first_operand_along_its_last_axis() -> None:
    found = only(product(sparse((320, 256), 1), first=True), "MatMul")
    assert found.is_sparse and (found.axis, found.inputs, found.outputs) == (1, 256, 320)


@pytest.mark.parametrize("turned", [0, 1])
def test_a_gemm_by_its_flags(turned: int) -> None:
    b = Builder()
    shape = (320, 256) if turned else (256, 320)
    x = b.input("x", [64, 256])
    b.output(b.op("Gemm", [x, b.const(sparse(shape, turned))], transB=turned))
    found = only(b, "Gemm")
    assert found.is_sparse and found.worthwhile and (found.axis, found.inputs, found.outputs) == (turned, 256, 320)


def convolution(weight: np.ndarray, *, groups: int = 1, size: int = 8) -> Builder:
    b = Builder()
    x = b.input("x", [1, weight.shape[1] * groups, size, size])
    b.output(b.op("Conv", [x, b.const(weight)], group=groups, pads=[weight.shape[2] // 2] * 4))
    return b


def test_convolutions_along_their_input_channels() -> None:
    found = only(convolution(sparse((128, 64, 3, 3), 1)), "Conv")
    assert found.is_sparse and found.worthwhile and (found.axis, found.positions, found.rows) == (1, 9, 64)
    assert not only(convolution(sparse((128, 64, 3, 4), 3)), "Conv").is_sparse


@pytest.mark.parametrize(
    ("shape", "groups", "size", "reason"),
    [
        ((128, 32, 1, 1), 1, 8, "32 input channels, sparse kernels are expected to win from 256"),
        ((128, 16, 3, 3), 1, 8, "16 input channels × 9 positions, sparse kernels are expected to win from 256"),
        ((64, 64, 3, 3), 1, 8, "64 outputs, sparse kernels are expected to win from 128"),
        ((128, 256, 1, 1), 1, 8, "128 outputs, sparse kernels are expected to win from 256"),
        ((256, 256, 1, 1), 1, 1, "one row of activations: reading the weights decides, not arithmetic"),
        ((512, 128, 3, 3), 2, 8, "2 groups: dense kernels of grouped convolutions are expected to be faster"),
    ],
)  # fmt: skip
def test_eligible_but_not_worthwhile(shape: tuple[int, ...], groups: int, size: int, reason: str) -> None:
    found = only(convolution(sparse(shape, 1), groups=groups, size=size), "Conv")
    assert found.is_sparse and not found.worthwhile and found.reason == reason and found.change


def test_channels_that_are_no_multiple_of_four() -> None:
    found = only(convolution(np.ones((128, 3, 3, 3), np.float32)), "Conv")
    assert not found.eligible and found.reason == "3 input channels are no multiple of 4"
    assert found.change == "pad them with zeros to 4, or widen the layer before"


def with_one_full_run() -> np.ndarray:
    weight = sparse((256, 256), 0)
    weight[:4, 7] = 1
    return weight


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (sparse((256, 256), 1), "its zeros are 2:4 along axis 1, TensorRT reads along axis 0"),
        (with_one_full_run(), "50% of it are zeros, but 1 of 16384 runs of four have fewer than two"),
        (np.full((256, 256), -0.0, np.float32), "65536 of its zeros are −0.0, which are no zeros in the stored bytes"),
    ],
    ids=["outputs", "one run", "negative"],
)
def test_zeros_that_do_not_count_are_explained(weight: np.ndarray, reason: str) -> None:
    found = only(product(weight), "MatMul")
    assert found.eligible and found.worthwhile and not found.is_sparse
    assert found.reason == reason and found.change


def test_zeros_along_a_flattened_kernel_are_explained_beside_what_else_speaks_against_the_layer() -> None:
    flat = sparse((64, 16 * 9), 1).reshape(64, 16, 3, 3)
    found = only(convolution(flat), "Conv")
    assert found.reason == (
        "its zeros are 2:4 along inputs and kernel positions in one line, TensorRT reads along axis 1; "
        "16 input channels × 9 positions, sparse kernels are expected to win from 256"
    )
    assert not found.is_sparse and not found.worthwhile


def test_layers_inside_branches_are_named_and_stay_dense() -> None:
    inner = Builder()
    data = inner.input("data", [64, 256])
    inner.output(inner.op("MatMul", [data, inner.const(sparse((256, 320), 0))]))
    branch = inner.model().graph
    node = next(node for node in branch if node.op_type == "MatMul")
    node.name = "inside"
    outer = Builder()
    outer.output(outer.op("Relu", [outer.input("x", [64, 256])]))
    model = outer.model()
    model.graph.append(ir.Node("", "If", [], [ir.AttrGraph("then_branch", branch)], name="if"))
    (found,) = judge(model)
    assert found.node == "inside" and not found.eligible and "inside a branch" in found.reason


def masked(op: str) -> Builder:
    """A weight that something stands in front of."""
    b = Builder()
    x = b.input("x", [64, 256])
    weight = b.const(sparse((256, 320), 0), "weight")
    if op == "Mul":
        weight = b.op("Mul", [weight, b.const((sparse((256, 320), 0) != 0).astype(np.float32))])
    elif op == "Reshape":
        flat = b.const(sparse((256, 320), 0).reshape(-1))
        weight = b.op("Reshape", [flat, b.const(np.array([256, 320], np.int64))])
    elif op == "Slice":
        names = [b.const(np.array([n], np.int64)) for n in (0, 320, 1)]
        weight = b.op("Slice", [b.const(np.tile(sparse((256, 320), 0), 2)), *names])
    b.output(b.op("MatMul", [x, weight]))
    return b


@pytest.mark.parametrize("op", ["Mul", "Reshape", "Slice"])
def test_whatever_stands_between_weight_and_layer_ends_the_analysis(op: str) -> None:
    found = only(masked(op), "MatMul")
    assert not found.eligible and f"between weight and layer there is {op}" in found.reason
    assert found.change == "fold it into a constant; prunec compile does so"
    assert ("mask" in found.reason) == (op == "Mul")


def test_canonicalising_bakes_a_mask_in() -> None:
    from prunec.passes.canonicalise import canonicalise

    (found,) = judge(canonicalise(masked("Mul").model()))
    assert found.eligible


def test_products_of_activations_have_no_weight() -> None:
    b = Builder()
    x, y = b.input("x", [64, 256]), b.input("y", [256, 256])
    b.output(b.op("MatMul", [b.op("Relu", [x]), b.op("Relu", [y])]), b.op("MatMul", [x, y]))
    first, second = judge(b.model())
    assert first.reason.startswith("its weight is computed at run time by Relu")
    assert second.reason == "its weight is an input of the graph"
    assert not first.eligible and not second.eligible


def quantised(zero: int) -> Builder:
    b = Builder(opset=19)
    x = b.input("x", [64, 256])
    weight = (sparse((256, 320), 0) * 20).round().astype(np.int8)
    scale = b.const(np.full(320, 0.05, np.float32))
    dequantised = b.op("DequantizeLinear", [b.const(weight), scale, b.const(np.full(320, zero, np.int8))], axis=1)
    b.output(b.op("MatMul", [x, dequantised]))
    return b


def test_through_quantisers_with_a_zero_point_of_zero() -> None:
    found = only(quantised(0), "MatMul")
    assert found.is_sparse and found.axis == 0
    refused = only(quantised(3), "MatMul")
    assert not refused.eligible and refused.reason == "its zero point is 3, TensorRT takes 0 only"


def test_through_a_cast_and_from_a_constant_node() -> None:
    b = Builder()
    x = b.input("x", [64, 256])
    weight = b.op("Constant", [], value=_tensor(sparse((256, 320), 0).astype(np.float16)))
    b.output(b.op("MatMul", [x, b.op("Cast", [weight], to=TensorProto.FLOAT)]))
    assert only(b, "MatMul").is_sparse


def _tensor(array: np.ndarray) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(array)


def test_operators_that_tensorrt_does_not_look_at() -> None:
    b = Builder()
    x = b.input("x", [1, 8, 4, 4])
    b.output(b.conv_transpose(x, 8))
    (found,) = judge(b.model())
    assert not found.eligible and "Conv, Gemm and MatMul only, this is ConvTranspose" in found.reason


def test_weights_stay_unread_without_counts() -> None:
    def read() -> ir.TensorProtocol:
        raise AssertionError("the weight was read")

    model = product(sparse((256, 320), 0)).model()
    (value,) = model.graph.initializers.values()
    value.const_value = ir.LazyTensor(read, ir.DataType.FLOAT, ir.Shape((256, 320)), name=value.name)
    (found,) = judge(model, counts=False)
    assert found.eligible and found.count is None
