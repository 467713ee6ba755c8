"""ONNX Runtime sessions: memory and file, intermediate outputs, and models too large for one message."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx import session as session_module
from prunec.backends.onnx import weights as weights_module
from prunec.backends.onnx.session import make_session, run
from prunec.frontend.onnx import load
from tests.frontend.models import conv_model, save, save_external, text_model

CHAIN = "g (float[2] x) => (float[2] y) { a = Neg (x) b = Relu (a) y = Neg (b) }"


def feed() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}


def test_memory_and_file_give_the_same(tmp_path: Path) -> None:
    path = save(conv_model(), tmp_path / "m.onnx")
    from_file = run(make_session(path), feed())
    in_memory = run(make_session(load(path).model), feed())
    assert list(in_memory) == ["y"]
    assert np.array_equal(from_file["y"], in_memory["y"])


@pytest.mark.parametrize("optimise", [True, False])
def test_intermediate_values_can_be_asked_for(optimise: bool) -> None:
    model = ir.from_proto(text_model(CHAIN))
    found = run(make_session(model, outputs=["b", "y"], optimise=optimise), {"x": np.array([1, -2], np.float32)})
    assert {name: array.tolist() for name, array in found.items()} == {"b": [0, 2], "y": [0, -2]}
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_an_unknown_output_is_an_error() -> None:
    with pytest.raises(KeyError):
        make_session(ir.from_proto(text_model(CHAIN)), outputs=["nowhere"])


def test_external_data_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_external(tmp_path / "m.onnx")
    monkeypatch.chdir("/")
    external = run(make_session(load(path).model, outputs=["y"]), feed())
    assert np.array_equal(external["y"], run(make_session(ir.from_proto(conv_model())), feed())["y"])


def test_weights_that_nothing_reads_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "SMALL_BYTES", 16)
    model = ir.from_proto(conv_model())
    wanted = run(make_session(model), feed())["y"]
    unread = ir.tensor(np.ones((4, 8), np.float32), name="unread")
    model.graph.register_initializer(ir.Value(name="unread", const_value=unread))
    assert np.array_equal(run(make_session(model), feed())["y"], wanted)
    assert "unread" in model.graph.initializers


def test_large_weights_are_shared_with_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(weights_module, "SMALL_BYTES", 16)
    model = ir.from_proto(conv_model())
    wanted = run(make_session(model, optimise=False), feed())["y"]
    messages = []
    original = session_module._session
    monkeypatch.setattr(session_module, "_session", lambda source, o: messages.append(source) or original(source, o))
    session = make_session(model, optimise=False)
    kernel = model.graph.initializers["w"].const_value
    assert kernel is not None
    assert kernel.tobytes() not in messages[0]
    del model
    assert np.array_equal(run(session, feed())["y"], wanted)
    assert list(tmp_path.iterdir()) == []


def test_the_model_keeps_its_own_tensors() -> None:
    model = ir.from_proto(conv_model())
    make_session(model)
    assert not any(isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values())


def test_threads_are_set(tmp_path: Path) -> None:
    options = make_session(ir.from_proto(conv_model()), threads=2).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
