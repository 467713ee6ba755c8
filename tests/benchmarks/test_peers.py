"""The comparison with other tools, without any of them: the protocol, the limits, the scores, the rows."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from benchmarks.kept import KeptRows
from benchmarks.peers import __main__ as command
from benchmarks.peers.catalogue import NM, PEERS, Case, Peer, parse_case
from benchmarks.peers.fit_shapes import fit_shapes
from benchmarks.peers.jobs import Answer, Limits, PeerFailed, ask, exported
from benchmarks.peers.score import check_runs, restored, score
from benchmarks.peers.table import Row, failure, markdown, success, with_times
from prunec.backends.onnx.session import make_session, run
from tests.benchmarks.small_subject import SmallSubject, small_model

HALF = Case("unstructured", 0.5)
FAKE = Peer("fake", "1.0", "tests.benchmarks.fake_peer", (), {"unstructured": ("zero",), NM: ("raise",)})


@pytest.fixture
def subject(tmp_path: Path) -> SmallSubject:
    return SmallSubject(tmp_path / "small.onnx")


def answer_of(subject: SmallSubject, method: str, limits: Limits = Limits()) -> Answer:  # noqa: B008
    with exported(subject) as folder:
        return ask(Path(sys.executable), FAKE.runner, folder, subject, HALF, method, limits)


@pytest.mark.parametrize("text", ["2:4", "unstructured@0.5", "channels@0.3"])
def test_cases_are_read(text: str) -> None:
    case = parse_case(text)
    assert 0 < case.share < 1 and text.startswith(case.kind)


@pytest.mark.parametrize("text", ["2:4@0.5", "channels", "channels@1", "channels@x", "block:4x1@0.5"])
def test_other_cases_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|lies between|could not convert"):
        parse_case(text)


def test_every_peer_pins_what_it_installs() -> None:
    for peer in PEERS.values():
        assert all("==" in requirement for requirement in peer.requirements)
        assert any(requirement.endswith(f"=={peer.version}") for requirement in peer.requirements)
        assert (Path(command.__file__).parent / f"{peer.runner.rpartition('.')[2]}.py").is_file()


def test_a_peer_gets_the_data_and_gives_a_model(subject: SmallSubject) -> None:
    answer = answer_of(subject, "zero")
    assert 0 <= answer.seconds < 60
    assert not [name for name in answer.model.graph.initializers if name.endswith("weight")], "unread weights went"
    found = score(subject, answer.model)
    assert found.zeros == pytest.approx(0.5, abs=0.01) and found.macs == found.params == 1
    assert found.macs_nonzero == pytest.approx(0.5, abs=0.01) and found.output_error > 0.1


@pytest.mark.parametrize(
    ("method", "reason"),
    [("raise", r"^ValueError: no such layer$"), ("die", "^exit code 3"), ("allocate", "MemoryError")],
)
def test_failures_have_a_reason(subject: SmallSubject, method: str, reason: str) -> None:
    with pytest.raises(PeerFailed, match=reason):
        answer_of(subject, method)


def test_a_model_that_does_not_run_is_a_failure(subject: SmallSubject) -> None:
    with pytest.raises(PeerFailed, match=r"^its model does not run: "):
        check_runs(subject, answer_of(subject, "break").model)
    check_runs(subject, answer_of(subject, "zero").model)


def test_a_limit_of_processor_time_holds(subject: SmallSubject) -> None:
    with pytest.raises(PeerFailed, match="over the limit of 3 s of processor time"):
        answer_of(subject, "spin", Limits(seconds=3))


def test_weights_in_constant_nodes_are_handed_over_as_initializers(tmp_path: Path) -> None:
    subject = SmallSubject(tmp_path / "small.onnx")
    model = onnx.load(subject.path)
    for weight in list(model.graph.initializer):
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [weight.name], value=weight))
    del model.graph.initializer[:]
    onnx.save(model, subject.path)
    with exported(subject) as folder:
        handed = onnx.load(folder / "model.onnx")
    assert {weight.name for weight in handed.graph.initializer} == {w.name for w in small_model().graph.initializer}


def with_weight(name: str, change: object) -> ir.Model:
    model = small_model()
    for weight in model.graph.initializer:
        if weight.name == name:
            array = numpy_helper.to_array(weight).copy()
            weight.CopyFrom(numpy_helper.from_array(change(array), name))  # type: ignore[operator]
    return ir.from_proto(model)


def along_channels(array: np.ndarray) -> np.ndarray:
    array[:, [0, 1]] = 0
    array[:, 4:6] = 0
    return array


def along_the_flattened_axis(array: np.ndarray) -> np.ndarray:
    """Two of every four weights (channel, row, column) in a row, the smaller ones."""
    fours = array.reshape(-1, 4)
    np.put_along_axis(fours, np.abs(fours).argsort(axis=1)[:, :2], 0, axis=1)
    return array


def test_the_dense_model_scores_as_itself(subject: SmallSubject) -> None:
    found = score(subject, ir.from_proto(small_model()))
    assert (found.output_error, found.zeros, found.params, found.macs, found.macs_nonzero) == (0, 0, 1, 1, 1)
    assert found.two_of_four == 0 and found.values == {"agreement": 1}


def test_two_of_four_counts_along_the_channels_only(subject: SmallSubject) -> None:
    able = 36 * (8 * 4 * 9 + 8 * 8 * 9) + 4 * 8  # the depthwise layer cannot be 2:4
    third = 36 * 8 * 8 * 9 / able
    assert score(subject, with_weight("third_weight", along_channels)).two_of_four == pytest.approx(third)
    flat = score(subject, with_weight("third_weight", along_the_flattened_axis))
    assert flat.two_of_four == 0 and flat.zeros == pytest.approx(288 / 968)


def test_layers_are_put_back_by_what_they_compute(subject: SmallSubject) -> None:
    pruned = answer_of(subject, "zero").model
    dense = ir.from_proto(small_model())
    again = restored(pruned, dense, {"second_weight", "head_weight"})
    assert again is not None
    weights = {node.name: node.inputs[1].const_value.numpy() for node in again.graph if len(node.inputs) > 1}  # type: ignore[union-attr]
    assert np.array_equal(weights["node2"], dense.graph.initializers["second_weight"].const_value.numpy())  # type: ignore[union-attr]
    assert (weights["node0"] == 0).mean() == pytest.approx(0.5)
    assert restored(again, dense, {"second_weight", "head_weight"}) is None
    assert restored(dense, dense, {"first_weight"}) is None


def test_rows_of_failures_and_of_seeds(subject: SmallSubject) -> None:
    failed = failure([subject], HALF, "fake 1.0", "zero", "ValueError: a | b")
    assert failed.value is None and "ValueError" in failed.note
    dense = score(subject, ir.from_proto(small_model()))
    ours = success([subject, subject], HALF, "prunec", "balanced", "prunec's", [dense, dense], 2.0)
    theirs = success([subject], HALF, "fake 1.0", "zero", "its own", [dense], 5.0)
    assert ours.note == "left untouched" and ours.range == "1.000 to 1.000" and ours.seeds == "0 0"
    timed = with_times([failed, ours, theirs])
    assert [row.time for row in timed] == [None, "1", "2.5"]
    assert [row.time for row in with_times([theirs])] == [None]
    lines = markdown(timed).splitlines()
    assert lines[0].startswith("**small, unstructured 50%**: agreement, dense 1.000; 10 calibration samples")
    assert len(lines) == 7 and "failed: ValueError: a / b" in lines[4] and "left untouched" in lines[5]
    assert "parameters" not in lines[2] and "zeros" not in lines[2]
    assert "zeros" in markdown([replace(ours, zeros=0.5), theirs]).splitlines()[2]
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_the_command_shows_success_and_failure_side_by_side_and_keeps_both(
    subject: SmallSubject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "Subject", lambda *_, **__: subject)
    monkeypatch.setattr(command, "python_of", lambda *_: Path(sys.executable))
    monkeypatch.setattr(command, "PEERS", {"fake": FAKE})

    def rows(**changed: object) -> list[Row]:
        arguments = {"samples": 10, "test_samples": None, "seeds": [0], "limit": 60} | changed
        with ExitStack() as stack:
            kept = KeptRows(Row, tmp_path / "rows.json")
            comparison = command.Comparison("small", argparse.Namespace(**arguments), kept, stack)
            cases = (HALF, Case(NM, 0.5))
            return [row for case in cases for row in comparison.rows(case, ["prunec", "fake"], [])]

    found = rows()
    assert [(row.tool, row.layers) for row in found] == [
        ("prunec", "prunec's"),
        ("fake 1.0", "its own"),
        ("fake 1.0", "prunec's"),
        ("prunec", "prunec's"),
        ("fake 1.0", "its own"),
    ]
    assert found[0].zeros == found[2].zeros
    assert found[3].two_of_four is not None and found[3].two_of_four > 0.5
    assert found[4].value is None and found[4].note == "failed: ValueError: no such layer"
    monkeypatch.setattr(command, "Subject", None)  # everything is there: no model is loaded
    assert rows() == found
    with pytest.raises(TypeError):
        rows(limit=61)


def test_shapes_follow_weights_that_were_cut() -> None:
    model = small_model()
    by_name = {weight.name: weight for weight in model.graph.initializer}
    for name, index in (
        ("first_weight", (slice(6),)),
        ("second_weight", (slice(6),)),
        ("third_weight", (slice(None), slice(6))),
    ):
        array = numpy_helper.to_array(by_name[name])[index]
        by_name[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    fit_shapes(model)
    feeds = {"image": np.ones((1, 4, 6, 6), np.float32)}
    assert run(make_session(ir.from_proto(model)), feeds)["logits"].shape == (1, 4)


@pytest.mark.torch
def test_a_graph_as_a_torch_module_answers_alike_and_goes_back() -> None:
    torch = pytest.importorskip("torch", reason="needs the [torch] extra")
    from benchmarks.peers.onnx_module import OnnxModule

    model = small_model()
    module = OnnxModule(model)
    kinds = [type(layer) for layer in module.layers.values()]
    assert kinds == [torch.nn.Conv2d] * 3 + [torch.nn.Linear]
    assert list(module.last_layers()) == ["head_weight"]
    image = np.random.default_rng(3).standard_normal((2, 4, 6, 6)).astype(np.float32)
    wanted = run(make_session(ir.from_proto(model)), {"image": image})["logits"]
    with torch.no_grad():
        assert np.allclose(module(image=torch.from_numpy(image)).numpy(), wanted, rtol=1e-4, atol=1e-4)
        module.layer("third_weight").weight[:, :4] = 0
    written = {weight.name: numpy_helper.to_array(weight) for weight in module.to_onnx().graph.initializer}
    assert not written["third_weight"][:, :4].any() and written["third_weight"][:, 4:].all()
    assert np.array_equal(written["head_weight"], numpy_helper.to_array(model.graph.initializer[3]))
