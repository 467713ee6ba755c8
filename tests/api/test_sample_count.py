"""How many samples a model gets by default: by what a sample costs, more where masks are chosen from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunec.api.sample_count import FEWEST_SAMPLES, MOST_SAMPLES, MOST_SPARSE_SAMPLES, default_samples, sample_macs


def model(tokens: int | None, width: int = 16) -> ir.Model:
    """x [b, tokens, width] times a square matrix; None: as many tokens as there are."""
    shape = ["b", "tokens" if tokens is None else tokens, width]
    weight = numpy_helper.from_array(np.ones((width, width), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weight],
    )
    return ir.serde.deserialize_model(
        helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])
    )


@pytest.fixture
def calib(tmp_path: Path) -> str:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.ones((6, 12, 16), np.float32))
    return str(path)


def test_small_models_get_the_most_and_zeros_more(calib: str) -> None:
    assert default_samples(model(1), calib) == MOST_SAMPLES
    assert default_samples(model(1), calib, is_sparse=True) == MOST_SPARSE_SAMPLES
    assert default_samples(model(10**6, 1024), calib, is_sparse=True) == FEWEST_SAMPLES


def test_made_up_inputs_and_unknown_lengths_get_no_more() -> None:
    assert default_samples(model(1), None, is_sparse=True) == MOST_SAMPLES
    assert default_samples(model(None), [np.ones((12, 16), np.float32)], is_sparse=True) == MOST_SAMPLES


def test_a_dynamic_axis_is_as_long_as_in_the_data(calib: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 tokens of 16 by 16, one sample of the batch."""
    own = model(None)
    assert sample_macs(own, calib) == 12 * 16 * 16
    monkeypatch.setattr("prunec.api.sample_count.SPARSE_MACS", 1000 * 12 * 16 * 16)
    assert default_samples(own, calib, is_sparse=True) == 1000
