"""The compressed form: bit for bit there and back, as another implementation writes it, and right in a product."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.backends.tensorrt.compressed import compress, decompress, product
from prunec.backends.tensorrt.eligibility import judge
from prunec.backends.tensorrt.proof import TOLERANCE, prove
from tests.tensorrt.test_checker import sparse
from tests.tensorrt.test_eligibility import convolution
from tests.tensorrt.test_eligibility import product as product_graph


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), runs=st.integers(1, 11), kept=st.integers(0, 2), seed=st.integers(0, 2**16))
def test_there_and_back_is_the_same_bytes(rows: int, runs: int, kept: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, runs, 4)).astype(np.float16)
    np.put_along_axis(weight, np.argsort(rng.random(weight.shape), -1)[..., : 4 - kept], np.float16(0), -1)
    weight = weight.reshape(rows, -1)
    stored = compress(weight)
    assert stored.values.shape == (rows, runs * 2) and stored.metadata.dtype == np.uint16
    assert decompress(stored).tobytes() == weight.tobytes()


def test_what_is_stored_is_what_the_manual_says() -> None:
    stored = compress(np.array([[0, 5, 0, 7, 3, 0, 0, 4, 0, 0, 9, 0, 0, 0, 0, 0]], np.float16))
    assert stored.values.tolist() == [[5, 7, 3, 4, 0, 9, 0, 0]]
    # positions 1 3 | 0 3 | 0 2 | 0 1, two bits each from the right
    assert stored.metadata.tolist() == [[0b0100_1000_1100_1101]]


def test_more_than_two_values_in_a_run_are_refused() -> None:
    with pytest.raises(ValueError, match="more than two values"):
        compress(np.array([[1, 2, 3, 0]], np.float16))


@pytest.mark.torch
def test_torch_stores_the_same_values_and_metadata() -> None:
    """torch's conversion for CUTLASS, with its reordering of metadata words undone."""
    torch = pytest.importorskip("torch", reason="needs the [torch] extra")
    from torch.sparse import _semi_structured_conversions as conversions

    weight = sparse((64, 128), 1).astype(np.float16)
    values, metadata = conversions.sparse_semi_structured_from_dense_cutlass(torch.from_numpy(weight))
    order = conversions._calculate_meta_reordering_scatter_offsets(64, 8, torch.int16, "cpu")
    words = torch.gather(metadata.reshape(-1), 0, order).reshape(64, 8).numpy().view(np.uint16)
    stored = compress(weight)
    assert np.array_equal(stored.values, values.numpy())
    assert np.array_equal(stored.metadata, words)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-6), (np.float16, 1e-3)])
def test_the_product_is_that_of_the_dense_weight(dtype: type, bound: float) -> None:
    weight = sparse((32, 256), 1).astype(dtype)
    data = np.random.default_rng(1).standard_normal((256, 8)).astype(dtype)
    expected = weight.astype(np.float64) @ data.astype(np.float64)
    assert np.abs(product(compress(weight), data) - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["conv", "matmul", "stack", "first"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_proof_of_a_weight_against_onnx_runtime(kind: str, dtype: type) -> None:
    weights = {"conv": ((16, 8, 3, 3), 1), "matmul": ((64, 32), 0), "stack": ((3, 64, 32), 1), "first": ((32, 64), 1)}
    weight = sparse(*weights[kind])
    b = convolution(weight) if kind == "conv" else product_graph(weight, first=kind == "first")
    model = b.model()
    _set(model, weight.astype(dtype))
    (verdict,) = judge(model)
    proof = prove(model, verdict)
    assert proof.passed and proof.round_trip and proof.units == proof.valid == weight.size // 4
    assert proof.product_max_rel <= (1e-5 if dtype is np.float32 else TOLERANCE)
    assert proof.compressed_bytes < weight.astype(dtype).nbytes


def test_a_weight_with_one_bad_run_does_not_pass() -> None:
    weight = sparse((64, 32), 0)
    weight[:4, 5] = 1.0
    model = product_graph(weight).model()
    (verdict,) = judge(model)
    proof = prove(model, verdict)
    assert not proof.passed and (proof.units, proof.valid) == (512, 511)


def test_a_wrong_product_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunec.backends.tensorrt import proof as module

    monkeypatch.setattr(module, "product", lambda stored, data: product(stored, data[::-1]))
    model = product_graph(sparse((64, 32), 0)).model()
    (verdict,) = judge(model)
    assert not prove(model, verdict).passed


def _set(model: ir.Model, array: np.ndarray) -> None:
    (value,) = model.graph.initializers.values()
    value.const_value = ir.Tensor(array, name=value.name)
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
