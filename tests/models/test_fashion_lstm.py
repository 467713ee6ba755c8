"""The recurrent network that ships with prunec: its structure, its file, its builder."""

import collections

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from prunec.graph import analyse
from prunec.models.fashion_lstm import SHIPPED, build
from prunec.models.fashion_lstm.graph import HIDDEN, LAYERS, SIDE, build_model, from_torch
from prunec.models.runner import only_output, onnx_runner
from prunec.passes.canonicalise import canonicalise


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(SHIPPED)


def test_is_two_bidirectional_layers_in_a_small_file(model):
    onnx.checker.check_model(model, full_check=True)
    ops = collections.Counter(node.op_type for node in model.graph.node)
    assert (ops["LSTM"], ops["Gemm"]) == (2, 1)
    assert SHIPPED.stat().st_size < 2_000_000
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_builder_writes_the_shipped_bytes(model):
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert build_model(weights, "lstm").SerializeToString(deterministic=True) == SHIPPED.read_bytes()


def test_runs_at_any_batch_size_with_the_same_answers(tmp_path):
    run = onnx_runner(build(tmp_path))
    images = np.random.default_rng(0).standard_normal((5, 1, SIDE, SIDE)).astype(np.float32)
    together = only_output(run({"image": images}))
    assert together.shape == (5, 10)
    alone = np.concatenate([only_output(run({"image": image[None]})) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def seeded(cell: str) -> dict[str, np.ndarray]:
    """Weights under torch's names."""
    gates = {"lstm": 4, "gru": 3}[cell]
    rng = np.random.default_rng(0)
    shapes = {"head.weight": (10, 2 * HIDDEN), "head.bias": (10,)}
    for layer in range(LAYERS):
        for end in (f"l{layer}", f"l{layer}_reverse"):
            shapes[f"rnn.weight_ih_{end}"] = (gates * HIDDEN, 2 * HIDDEN if layer else SIDE)
            shapes[f"rnn.weight_hh_{end}"] = (gates * HIDDEN, HIDDEN)
            shapes |= {f"rnn.bias_{kind}_{end}": (gates * HIDDEN,) for kind in ("ih", "hh")}
    return {name: rng.uniform(-0.1, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_hidden_units_of_each_layer_are_one_group_over_both_directions(cell):
    built = build_model(from_torch(seeded(cell), cell), cell)
    analysis = analyse(canonicalise(ir.from_proto(built)))
    free = [group for group in analysis.groups if group.pinned is None]
    assert [group.size for group in free] == [HIDDEN] * LAYERS
    nodes = [{member.node for member in group.members} for group in free]
    assert nodes == [{"rnn.0", "rnn.1"}, {"rnn.1", "head"}]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_are_in_onnx_order(cell):
    torch = pytest.importorskip("torch")
    weights = seeded(cell)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    network = kind(SIDE, HIDDEN, LAYERS, bidirectional=True)
    network.load_state_dict({k.removeprefix("rnn."): torch.from_numpy(v) for k, v in weights.items() if "rnn" in k})
    images = np.random.default_rng(1).standard_normal((3, 1, SIDE, SIDE)).astype(np.float32)
    with torch.no_grad():
        y, _ = network(torch.from_numpy(images).squeeze(1).transpose(0, 1))
    wanted = y.mean(0).numpy() @ weights["head.weight"].T + weights["head.bias"]
    session = onnxruntime.InferenceSession(build_model(from_torch(weights, cell), cell).SerializeToString())
    np.testing.assert_allclose(session.run(None, {"image": images})[0], wanted, atol=1e-5)
