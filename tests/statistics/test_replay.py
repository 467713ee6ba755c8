"""Running a model again from where something in it changes gives what the changed model gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx.segment import Segment
from prunec.backends.onnx.session import make_session
from prunec.statistics.replay import Change, Place, Replay
from tests.graph.builder import Builder

BATCHES = [{"x": np.random.default_rng(seed).standard_normal((2, 3, 8, 8)).astype(np.float32)} for seed in range(3)]


def network() -> ir.Model:
    """A residual network whose first sum is read again at the end, and a second output from the middle."""
    b = Builder()
    first = b.relu(b.conv(b.input("x", [2, 3, 8, 8]), 8))
    inner = b.relu(b.conv(first, 8))
    b.output(inner, b.conv(b.relu(b.op("Add", [first, b.conv(inner, 8)])), 4))
    return b.model()


MODEL = network()
CONVOLUTIONS = [node.name or "" for node in MODEL.graph if node.op_type == "Conv"]
PLACES: dict[Place, tuple[int, ...]] = {(name, 0): (0,) for name in CONVOLUTIONS}


def doubled(data: np.ndarray) -> np.ndarray:
    return 2 * data


def replay(*, ram_bytes: int = 1 << 30, session_bytes: int = 1 << 30) -> Replay:
    return Replay(MODEL, PLACES, BATCHES, threads=1, ram_bytes=ram_bytes, session_bytes=session_bytes)


def expected(changed: set[str]) -> list[list[np.ndarray]]:
    """Of the model with a multiplication by two in front of these nodes."""
    model = MODEL.clone()
    two = ir.Value(
        name="two", const_value=ir.tensor(np.float32(2)), shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    model.graph.register_initializer(two)
    for node in list(model.graph):
        if node.name in changed:
            mul = ir.node("Mul", [node.inputs[0], two], name=f"{node.name}.two")
            mul.outputs[0].name = f"{node.name}.two"
            model.graph.insert_before(node, mul)
            node.replace_input_with(0, mul.outputs[0])
    session = make_session(model)
    return [session.run(None, feeds) for feeds in BATCHES]


def assert_answers(asked: Replay, changed: set[str]) -> None:
    changes: dict[Place, Change] = {(name, 0): doubled for name in changed}
    found = list(asked.answers(changes))
    for own, wanted in zip(found, expected(changed), strict=True):
        for array, other in zip(own, wanted, strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
@pytest.mark.parametrize("session_bytes", [1, 3000, 1 << 30])
def test_questions_in_any_order(ram_bytes: int, session_bytes: int) -> None:
    asked = replay(ram_bytes=ram_bytes, session_bytes=session_bytes)
    first, second, third, fourth = CONVOLUTIONS
    for changed in (set(), {first}, {second, fourth}, {third}, {fourth}, set(), {first, third}, {second}):
        assert_answers(asked, changed)


def test_a_question_runs_what_lies_behind_its_change(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replay()
    list(asked.answers({}))
    ran: list[tuple[str, ...]] = []
    original = Segment.run

    def noted(self: Segment, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ran.append(self.outputs)
        return original(self, feeds)

    monkeypatch.setattr(Segment, "run", noted)
    list(asked.answers({(CONVOLUTIONS[2], 0): doubled}))
    assert len(ran) == len(CONVOLUTIONS) * len(BATCHES)  # up to there once, from there on once
    ran.clear()
    list(asked.answers({(CONVOLUTIONS[2], 0): doubled}))
    assert len(ran) == 2 * len(BATCHES)
    ran.clear()
    list(asked.answers({(CONVOLUTIONS[3], 0): doubled}))
    assert len(ran) == 2 * len(BATCHES)


@pytest.mark.parametrize(("session_bytes", "made"), [(1 << 30, lambda n: n == 4), (1, lambda n: n > 8)])
def test_sessions_are_made_once_where_they_fit(
    session_bytes: int, made: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    original = Segment.__init__

    def noted(self: Segment, *arguments: object) -> None:
        nonlocal count
        count += 1
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Segment, "__init__", noted)
    asked = replay(session_bytes=session_bytes)
    for name in CONVOLUTIONS:
        for _ in range(3):
            list(asked.answers({(name, 0): doubled}))
    assert made(count)


def test_constants_change_too() -> None:
    b = Builder()
    x = b.input("x", [2, 3, 8, 8])
    y = b.relu(b.conv(x, 4))
    scale = b.const(np.float32(1), "scale")
    b.output(b.op("Mul", [y, scale]))
    model = b.model()
    (node,) = (node.name or "" for node in model.graph if node.op_type == "Mul")
    asked = Replay(model, {(node, 1): ()}, BATCHES, threads=1, ram_bytes=0, session_bytes=1)
    before = list(asked.answers({}))
    for own, (other,) in zip(asked.answers({(node, 1): lambda: np.float32(3)}), before, strict=True):
        np.testing.assert_allclose(own[0], 3 * other, rtol=1e-6)
