"""The parts of compensation: patches of every kind of layer, solvers, and how they fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import PrunecError
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.fit import FEWEST_BATCHES, ROWS_PER_BATCH, spread
from prunec.passes.compensate.rows import Patches, channel_rows
from prunec.passes.compensate.solve import RowSystem, solve
from tests.graph.builder import Builder
from tests.graph.checks import run

GEOMETRIES: dict[str, tuple[str, list[int], list[int], dict[str, Any]]] = {
    "pointwise": ("Conv", [2, 4, 7, 6], [6, 4, 1, 1], {}),
    "pointwise, cropped": ("Conv", [1, 4, 3, 3], [6, 4, 1, 1], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "padded": ("Conv", [2, 4, 7, 6], [6, 4, 3, 3], {"pads": [1, 1, 1, 1]}),
    "strided, lopsided pads": ("Conv", [2, 4, 9, 8], [6, 4, 3, 2], {"strides": [2, 3], "pads": [0, 1, 2, 0]}),
    "dilated": ("Conv", [1, 4, 9, 9], [6, 4, 3, 3], {"dilations": [2, 1], "pads": [2, 0, 1, 1]}),
    "grouped": ("Conv", [2, 4, 7, 6], [6, 2, 3, 3], {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ("Conv", [2, 4, 7, 6], [8, 1, 3, 3], {"group": 4, "strides": [2, 2]}),
    "same upper": ("Conv", [1, 4, 7, 8], [6, 4, 4, 3], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ("Conv", [1, 4, 7, 8], [6, 4, 4, 3], {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    "valid": ("Conv", [1, 4, 7, 8], [6, 4, 4, 3], {"auto_pad": "VALID"}),
    "one axis": ("Conv", [2, 4, 12], [6, 4, 5], {"pads": [2, 1], "strides": [2]}),
    "three axes": ("Conv", [1, 2, 4, 5, 6], [3, 2, 2, 3, 3], {"pads": [0, 1, 1, 1, 1, 1]}),
    "transposed": ("ConvTranspose", [2, 4, 5, 6], [4, 3, 3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "transposed, output padding": (
        "ConvTranspose",
        [1, 4, 5, 6],
        [4, 3, 3, 3],
        {"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 2]},
    ),
    "transposed, grouped, dilated": (
        "ConvTranspose",
        [2, 4, 5, 6],
        [4, 3, 2, 3],
        {"group": 2, "dilations": [2, 1], "strides": [1, 2]},
    ),
    "transposed, same upper": (
        "ConvTranspose",
        [1, 4, 5, 6],
        [4, 3, 3, 3],
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "gemm": ("Gemm", [5, 4], [6, 4], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "gemm, transposed data": ("Gemm", [4, 5], [4, 6], {"transA": 1}),
    "product": ("MatMul", [2, 5, 4], [4, 6], {}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_patches_times_the_matrix_are_the_layers_output(name: str) -> None:
    op, x_shape, w_shape, attributes = GEOMETRIES[name]
    b = Builder(seed=0)
    x = b.input("x", x_shape)
    groups = attributes.get("group", 1)
    outputs = w_shape[1] * groups if op == "ConvTranspose" else w_shape[0]
    if op == "Gemm":
        outputs = w_shape[0] if attributes.get("transB") else w_shape[1]
    bias = [b.weight(outputs)] if op != "MatMul" else []
    b.output(b.op(op, [x, b.weight(*w_shape), *bias], **attributes))
    model = b.model()
    data = np.random.default_rng(1).standard_normal(x_shape).astype(np.float32)
    (y,) = run(model, {"x": data})
    (layer,), skipped = find_layers(model)
    assert not skipped
    wanted = channel_rows(y, layer.out_axis)
    patches = Patches(layer, data, y.shape)
    positions = np.random.default_rng(2).permutation(len(wanted))
    z = patches.take(positions)
    matrix = layer.matrix()
    flat = matrix.reshape(*matrix.shape[:2], -1)
    found = np.einsum("gmn,grn->rgm", flat, z).reshape(len(wanted), -1) + layer.bias()
    np.testing.assert_allclose(found, wanted[positions], rtol=1e-4, atol=1e-5)
    arrays = layer.arrays(matrix, layer.bias())
    for index, array in arrays.items():
        value = layer.node.inputs[index]
        assert value is not None and value.const_value is not None
        np.testing.assert_allclose(array, value.const_value.numpy(), rtol=1e-6)


def _solved(start: np.ndarray, covariance: np.ndarray, cross: np.ndarray, damping: float) -> tuple[np.ndarray, float]:
    change, used = solve(covariance, cross - start @ covariance, damping)
    return start + change, used


@pytest.mark.parametrize("inner", [5, 80])
def test_solutions_are_ridge_regressions_towards_the_start(inner: int) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((300, inner)) * rng.uniform(0.1, 10, inner)
    start, truth = rng.standard_normal((2, 3, inner))
    t = z @ truth.T + 0.1 * rng.standard_normal((300, 3))
    covariance, cross = (z.T @ z / 300)[None], (t.T @ z / 300)[None]
    weights, used = _solved(start[None], covariance, cross, 0.1)
    ridge = 0.1 * np.diagonal(covariance[0])
    wanted = (cross[0] + start * ridge) @ np.linalg.inv(covariance[0] + np.diag(ridge))
    np.testing.assert_allclose(weights[0], wanted, rtol=1e-8)
    assert used == 0.1
    change, _ = RowSystem(z, t - z @ start.T).change(0.1)
    np.testing.assert_allclose(start + change, wanted, rtol=1e-6)


def test_inputs_that_never_vary_keep_their_weights() -> None:
    covariance = np.diag([1.0, 0.0, 2.0])[None]
    weights, _ = _solved(np.ones((1, 2, 3)), covariance, np.array([[[2.0, 0.0, 2.0], [1.0, 0.0, 4.0]]]), 1e-6)
    np.testing.assert_allclose(weights[0], [[2, 1, 1], [1, 1, 2]], rtol=1e-5)
    weights, _ = _solved(np.ones((1, 2, 3)), np.zeros((1, 3, 3)), np.zeros((1, 2, 3)), 1e-6)
    assert (weights == 1).all()


@pytest.mark.parametrize("inner", [3, 100])
def test_a_failed_factorisation_escalates_and_tells(inner: int) -> None:
    covariance = np.eye(inner)[None]
    covariance[0, 0, 1] = covariance[0, 1, 0] = 1.0 + 1e-4
    weights, used = _solved(np.zeros((1, 1, inner)), covariance, np.ones((1, 1, inner)), 1e-6)
    assert np.isfinite(weights).all()
    assert used == pytest.approx(1e-3)


def test_what_cannot_be_solved_is_an_error() -> None:
    with pytest.raises(PrunecError, match="PC332"):
        _solved(np.zeros((1, 1, 2)), np.full((1, 2, 2), np.nan), np.ones((1, 1, 2)), 1e-6)


def test_a_constant_that_others_use_is_copied() -> None:
    from prunec.passes.compensate.constants import set_constant

    b = Builder()
    x = b.input("x", [1, 4, 4, 4])
    bias = b.weight(4)
    y = b.op("Conv", [x, b.weight(4, 4, 1, 1), bias])
    b.output(b.op("Conv", [y, b.weight(4, 4, 1, 1), bias]))
    model: ir.Model = b.model()
    first, second = model.graph
    set_constant(model.graph, first, 2, np.arange(4.0))
    values = [node.inputs[2] for node in (first, second)]
    assert values[0] is not values[1] and values[0] is not None and values[0].const_value is not None
    assert values[0].const_value.numpy().tolist() == [0, 1, 2, 3]
    assert values[0].dtype == ir.DataType.FLOAT


def test_what_the_type_rounds_to_zero_has_no_sign() -> None:
    from prunec.passes.compensate.constants import set_constant

    b = Builder()
    b.output(b.op("Gemm", [b.input("x", [1, 2]), b.weight(2, 3)]))
    model: ir.Model = b.model()
    (node,) = model.graph
    set_constant(model.graph, node, 1, np.array([[-1e-60, 1.0, -0.0], [0.0, -2.0, 1e-60]]))
    assert node.inputs[1] is not None and node.inputs[1].const_value is not None
    found = node.inputs[1].const_value.numpy()
    assert found.tolist() == [[0, 1, 0], [0, -2, 0]] and np.signbit(found).sum() == 1


def test_few_rows_come_from_few_batches_and_all_rows_from_all() -> None:
    random = np.random.default_rng(0)
    large, small = [10_000] * 5000, [7] * 500
    assert len(spread(random, large, 4096)) == 4096 // ROWS_PER_BATCH
    assert len(spread(random, large, 10)) == FEWEST_BATCHES
    assert len(spread(random, large, 10**6)) == 5000
    used = spread(random, small, 700)
    assert len(used) == 100 and (np.diff(used) > 0).all()
    assert len(set(used.tolist()) & set(spread(random, small, 700).tolist())) < 60  # other ones for other layers
