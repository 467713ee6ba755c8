"""What a network is trained as gives what the network itself gives, and the same gradients, in fewer operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graph.builder import Builder
from tests.recover.nets import model

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
cheaper = pytest.importorskip("prunec.recover.cheaper")
student = pytest.importorskip("prunec.recover.student")
parameters = pytest.importorskip("prunec.recover.parameters")
pytestmark = pytest.mark.torch


def number(b: Builder, value: float, *shape: int) -> str:
    return b.const(np.full(shape, value, np.float32))


def image(b: Builder) -> str:
    return b.conv(b.input("x", ["n", 3, 8, 8]), 8)  # type: ignore[list-item]


def clipped(b: Builder, x: str, high: float = 6.0) -> str:
    return b.op("Clip", [x, number(b, 0), number(b, high)])


def divided_last(b: Builder) -> str:
    x = image(b)
    gate = clipped(b, b.op("Add", [number(b, 3), x]))
    return b.conv(b.op("Div", [b.op("Mul", [gate, x]), number(b, 6, 1)]), 4)


def divided_first(b: Builder) -> str:
    x = image(b)
    gate = clipped(b, b.op("Add", [x, number(b, 3, 1)]))
    return b.conv(b.op("Mul", [x, b.op("Div", [gate, number(b, 6)])]), 4)


def erf(b: Builder, x: str) -> str:
    return b.op("Add", [b.op("Erf", [b.op("Div", [x, number(b, 2**0.5)])]), number(b, 1)])


def halved_last(b: Builder) -> str:
    x = b.linear(b.input("x", ["n", 5, 16]), 16)  # type: ignore[list-item]
    return b.linear(b.op("Mul", [b.op("Mul", [x, erf(b, x)]), number(b, 0.5)]), 4)


def halved_first(b: Builder) -> str:
    x = b.linear(b.input("x", ["n", 5, 16]), 16)  # type: ignore[list-item]
    return b.linear(b.op("Mul", [b.op("Mul", [x, number(b, 0.5)]), erf(b, x)]), 4)


def scaled(b: Builder) -> str:
    y = b.op("Add", [number(b, 0.25, 1), b.op("Mul", [number(b, 1.5, 1), image(b)])])
    return b.conv(y, 4)


def clips(b: Builder) -> str:
    return b.conv(clipped(b, image(b)), 4)


def rectified(b: Builder) -> str:
    """In place behind the convolution and behind the sum, not where the sum needs what goes in."""
    y = b.relu(image(b))
    z = b.conv(y, 8)
    return b.conv(b.relu(b.op("Add", [b.relu(z), z])), 4)


def built(build: Any, monkeypatch: pytest.MonkeyPatch, *, as_is: bool) -> Any:
    net = model(build)
    with monkeypatch.context() as patched:
        if as_is:
            patched.setattr(student, "make_cheaper", lambda *_: None)
            patched.setattr(student, "channels_last", lambda *_: None)
        own = student.Student(net, parameters.trainable(net))
        return own, own.part(None, [value.name for value in net.graph.outputs]), net


def called(part: Any) -> list[str]:
    return [node.target.__name__ for node in part._module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("build", "now", "gone"),
    [
        (divided_last, "hardswish", {"clip", "div", "mul"}),
        (divided_first, "hardswish", {"clip", "div", "mul"}),
        (halved_last, "gelu", {"erf", "div", "mul"}),
        (halved_first, "gelu", {"erf", "div", "mul"}),
        (scaled, "scaled", {"mul", "add"}),
        (clips, "hardtanh", {"clip"}),
        (rectified, "relu", set()),
    ],
)
def test_values_and_gradients_stay(build: Any, now: str, gone: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for as_is in (False, True):
        own, part, net = built(build, monkeypatch, as_is=as_is)
        shape = [7, *(int(d) for d in list(net.graph.inputs[0].shape)[1:])]
        x = torch.from_numpy(3 * np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        for parameter in own.parameters.values():
            parameter.requires_grad_(True)
        (y,) = part({"x": x}).values()
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        found.append((y.detach(), {name: p.grad for name, p in own.parameters.items()}, called(part)))
    (y, gradients, ours), (wanted, theirs, before) = found
    assert now in ours and not gone & set(ours) and gone <= set(before)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-4, msg=name)


def test_what_others_read_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value inside of a pattern that is a target, or another clip's, is there as it was."""

    def build(b: Builder) -> str:
        x = image(b)
        gate = clipped(b, b.op("Add", [x, number(b, 3)]))
        y = b.op("Mul", [x, b.op("Div", [gate, number(b, 6)])])
        b.output(gate)
        b.output(x)
        return b.relu(y)

    values = []
    for as_is in (False, True):
        _, part, _ = built(build, monkeypatch, as_is=as_is)
        values.append(part({"x": torch.linspace(-4, 4, 2 * 3 * 64).reshape(2, 3, 8, 8)}))
        assert as_is or "hardswish" not in called(part)
    for one, other in zip(*(own.values() for own in values), strict=True):
        torch.testing.assert_close(one, other)


def test_numbers_of_other_formulas_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """x·clip(x + 3, 0, 6)/5 is no hardswish."""

    def build(b: Builder) -> str:
        x = image(b)
        return b.op("Div", [b.op("Mul", [x, clipped(b, b.op("Add", [x, number(b, 3)]))]), number(b, 5)])

    _, part, _ = built(build, monkeypatch, as_is=False)
    assert "hardswish" not in called(part) and "div" in called(part)


def test_what_may_have_no_axis_keeps_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """[1] beside a plain number makes a vector of it."""

    def build(b: Builder) -> str:
        x = b.op("ReduceMean", [b.input("x", [4, 3])], keepdims=0)
        return b.op("Add", [b.op("Mul", [x, number(b, 2, 1)]), number(b, 1)])

    net = model(build)
    part = student.Student(net, parameters.trainable(net)).part(None, [net.graph.outputs[0].name])
    (y,) = part({"x": torch.ones(4, 3)}).values()
    assert y.shape == (1,) and float(y) == 3 and "scaled" not in called(part)
