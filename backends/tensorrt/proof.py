"""The proof of one weight in the finished graph: counted, compressed, decompressed, multiplied, compared.

pattern     every aligned run of four along the axis that TensorRT reduces has two zeros, stored as +0
round trip  values + metadata, decompressed, are the weight's own bytes
product     the compressed weight times seeded activations, against ONNX Runtime's operator on the dense weight
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx import helper

from prunec.backends.base import Verdict
from prunec.backends.onnx.segment import Segment
from prunec.backends.tensorrt.checker import count, digest
from prunec.backends.tensorrt.compressed import Compressed, compress, decompress, product
from prunec.backends.tensorrt.weights import NotFound, find_weight
from prunec.verify.metrics import max_relative

COLUMNS = 8
"""Activations per product: the n of one sparse tensor core instruction (mma.sp m16n8)."""
TOLERANCE = 2e-3
"""Of the largest output: one rounding to FP16 is 5e-4, and sums are taken in another order."""


@dataclass(frozen=True)
class WeightProof:
    """One weight, as stored. `product_max_rel` is relative to the largest output of its operator."""

    node: str
    op: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    axis: int
    units: int
    valid: int
    zeros: float
    sha256: str
    compressed_bytes: int
    round_trip: bool
    product_max_rel: float

    @property
    def passed(self) -> bool:
        return self.units == self.valid > 0 and self.round_trip and self.product_max_rel <= TOLERANCE


def prove(model: ir.Model, verdict: Verdict, *, seed: int = 0) -> WeightProof:
    """`verdict` is of a layer of `model` that is eligible."""
    node = next(node for node in model.graph if node.name == verdict.node)
    found = next(
        weight
        for value in node.inputs
        if not isinstance(weight := find_weight(value), NotFound) and (weight.value.name or "") == verdict.tensor
    )
    assert verdict.axis is not None
    array = np.asarray(found.tensor.numpy())
    counted = count(array, verdict.axis, found.zero)
    matrices = _matrices(array, verdict)
    stored = [compress(matrix) for matrix in matrices] if counted.is_sparse else []
    is_same = bool(stored) and all(
        np.array_equal(_bits(decompress(form)), _bits(matrix)) for form, matrix in zip(stored, matrices, strict=True)
    )
    return WeightProof(
        node=verdict.node,
        op=verdict.op,
        tensor=verdict.tensor,
        dtype=array.dtype.name,
        shape=array.shape,
        axis=verdict.axis,
        units=counted.units,
        valid=counted.valid if not counted.negative else 0,
        zeros=counted.zeros,
        sha256=digest(array),
        compressed_bytes=sum(form.nbytes for form in stored),
        round_trip=is_same,
        product_max_rel=_product_error(stored, matrices, verdict, seed) if stored else float("inf"),
    )


def _matrices(array: np.ndarray, verdict: Verdict) -> list[np.ndarray]:
    """[outputs, inputs] of every kernel position, or of every matrix of a stack."""
    assert verdict.axis is not None
    axis = verdict.axis % array.ndim
    if verdict.op == "Conv":
        turned = np.moveaxis(array, (0, axis), (-2, -1))
    else:
        rows = array.ndim - 2 if axis == array.ndim - 1 else array.ndim - 1
        turned = np.moveaxis(array, (rows, axis), (-2, -1))
    return [np.ascontiguousarray(matrix) for matrix in turned.reshape(-1, *turned.shape[-2:])]


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8)


def _product_error(stored: list[Compressed], matrices: list[np.ndarray], verdict: Verdict, seed: int) -> float:
    """Convolutions sum over kernel positions (and their groups side by side); products stand for themselves."""
    rng = np.random.default_rng(seed)
    data = [rng.standard_normal((matrix.shape[1], COLUMNS)).astype(_operand(matrix)) for matrix in matrices]
    own = [product(form, x) for form, x in zip(stored, data, strict=True)]
    if verdict.op != "Conv":
        return max(max_relative(_matmul(w, x), y) for w, x, y in zip(matrices, data, own, strict=True))
    return max_relative(_convolved(matrices, data), np.add.reduce(own))


def _operand(weight: np.ndarray) -> type[np.floating]:
    return np.float16 if weight.dtype == np.float16 else np.float32


def _matmul(weight: np.ndarray, data: np.ndarray) -> np.ndarray:
    """ONNX Runtime's MatMul on FP32 copies of the operands."""
    feeds = {"w": weight.astype(np.float32), "x": data.astype(np.float32)}
    return _run(helper.make_node("MatMul", ["w", "x"], ["y"]), feeds)


def _convolved(matrices: list[np.ndarray], data: list[np.ndarray]) -> np.ndarray:
    """ONNX Runtime's Conv of one output position: [outputs, n] with the kernel as one line of positions."""
    weight = np.stack(matrices, axis=-1).astype(np.float32)  # [outputs, inputs, positions]
    lines = np.stack(data, axis=-1).astype(np.float32).transpose(1, 0, 2)  # [n, inputs, positions]
    found = _run(helper.make_node("Conv", ["x", "w"], ["y"]), {"x": lines, "w": weight})
    turned: np.ndarray = found[:, :, 0].T
    return turned


def _run(node: object, feeds: dict[str, np.ndarray]) -> np.ndarray:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=9)
    segment = Segment(model, [node], [], feeds, ["y"], 1)  # type: ignore[list-item]
    return segment.run(feeds)["y"]
