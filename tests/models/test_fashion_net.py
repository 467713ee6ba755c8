"""The network that ships with prunec: its structure, its file, and that the builder still writes that file."""

import collections
import gzip
import struct

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunec.models.fashion_net import SHIPPED, build
from prunec.models.fashion_net.data import normalise, read_idx
from prunec.models.fashion_net.graph import build_model
from prunec.models.runner import only_output, onnx_runner


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(SHIPPED)


def test_is_a_small_residual_network_with_unfolded_batch_norms(model):
    onnx.checker.check_model(model, full_check=True)
    ops = collections.Counter(node.op_type for node in model.graph.node)
    assert (ops["Conv"], ops["BatchNormalization"], ops["Add"], ops["Gemm"]) == (13, 13, 5, 1)
    assert SHIPPED.stat().st_size < 3_000_000
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_builder_writes_the_shipped_bytes(model):
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert build_model(weights).SerializeToString(deterministic=True) == SHIPPED.read_bytes()


def test_runs_at_any_batch_size_with_the_same_answers(tmp_path):
    run = onnx_runner(build(tmp_path))
    images = np.random.default_rng(0).standard_normal((5, 1, 28, 28)).astype(np.float32)
    together = only_output(run({"image": images}))
    assert together.shape == (5, 10)
    alone = np.concatenate([only_output(run({"image": image[None]})) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_reads_idx_files(tmp_path):
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 3, 2, 2) + images.tobytes()))
    np.testing.assert_array_equal(read_idx(path), images)
    path.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 13, 1, 0)))
    with pytest.raises(ValueError, match="idx"):
        read_idx(path)


def test_normalised_pixels_have_the_mean_of_the_training_set_at_zero():
    values = normalise(np.array([0, 255 * 0.2860, 255], np.float32))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [-0.8102, 0.0, 2.0227], atol=1e-4)


@pytest.mark.torch
def test_the_module_computes_what_the_file_does(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the [torch] extra")
    network = pytest.importorskip("prunec.models.fashion_net.network")
    images = np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)
    expected = only_output(onnx_runner(build(tmp_path))({"image": images}))
    model = network.pretrained().eval()
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.from_numpy(images)).numpy(), expected, rtol=1e-4, atol=1e-4)
        network.initialised_anew(model, 0)
        assert not np.allclose(model(torch.from_numpy(images)).numpy(), expected, atol=0.1)


@pytest.mark.torch
def test_the_step_size_rises_and_falls_in_every_cycle():
    torch = pytest.importorskip("torch", reason="needs the [torch] extra")
    training = pytest.importorskip("prunec.models.fashion_net.training")
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 2.0)
    rate, seen = training.cycles(optimiser, 21, 2), []
    for _ in range(21):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        rate.step()
    assert seen[:10] == seen[10:20] and seen[1] == max(seen) == 2.0 and seen[0] == 1.0
    assert seen[1:10] == sorted(seen[1:10], reverse=True) and 0 < seen[9] < 0.2 and seen[20] == seen[9]
