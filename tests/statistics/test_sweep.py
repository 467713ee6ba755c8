"""Values of a model some names at a time: those of one session, from one run of every node per batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx.segment import Segment
from prunec.backends.onnx.session import make_session, run
from prunec.statistics.sweep import made_at, outputs, sweep
from tests.graph.builder import Builder


def network() -> ir.Model:
    """A residual network: the first sum is read again at the end."""
    b = Builder()
    x = b.input("x", [2, 3, 8, 8])
    first = b.relu(b.conv(x, 8))
    inner = b.relu(b.conv(first, 8))
    b.output(b.conv(b.relu(b.op("Add", [first, b.conv(inner, 8)])), 4))
    return b.model()


def batches() -> Iterator[dict[str, np.ndarray]]:
    for seed in range(3):
        yield {"x": np.random.default_rng(seed).standard_normal((2, 3, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_give_what_the_whole_model_gives(size: int, ram_bytes: int) -> None:
    model = network()
    names = sorted(made_at(model), key=made_at(model).__getitem__)
    values = [name for name in names if name not in model.graph.initializers]
    wanted = [values[i : i + size] for i in range(0, len(values), size)]
    session = make_session(model, outputs=values[1:])
    expected = [{**feeds, **run(session, feeds)} for feeds in batches()]
    seen: list[tuple[int, int]] = []
    for k, feeds, found in sweep(model, wanted, batches, threads=1, ram_bytes=ram_bytes):
        number = sum(part == k for part, _ in seen)
        seen.append((k, number))
        np.testing.assert_array_equal(feeds["x"], expected[number]["x"])
        assert set(found) == set(wanted[k])
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[number][name], rtol=1e-5, atol=1e-5)
    assert seen == [(k, number) for k in range(len(wanted)) for number in range(3)]


def test_every_node_runs_once_per_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    ran: list[str] = []
    original = Segment.__init__

    def noted(self: Segment, model: ir.Model, nodes: list[object], *rest: object, **more: object) -> None:
        ran.extend(node.name for node in nodes)  # type: ignore[attr-defined]
        original(self, model, nodes, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Segment, "__init__", noted)
    outputs = [node.outputs[0].name or "" for node in model.graph]
    list(sweep(model, [outputs[:2], outputs[2:4], outputs[4:]], batches, threads=1, ram_bytes=1 << 20))
    assert sorted(ran) == sorted(node.name or "" for node in model.graph)


@pytest.mark.parametrize("ram_bytes", [1, 2000, 1 << 30])
def test_outputs_of_a_model_whose_weights_are_taken_in_parts(ram_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    sizes: list[int] = []
    original = Segment.__init__

    def noted(
        self: Segment, model: ir.Model, nodes: object, weights: list[ir.Value], *rest: object, **more: object
    ) -> None:
        sizes.append(sum(value.const_value.nbytes for value in weights if value.const_value is not None))
        original(self, model, nodes, weights, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Segment, "__init__", noted)
    session = make_session(model)
    found = list(outputs(model, batches, threads=1, ram_bytes=ram_bytes))
    for own, feeds in zip(found, batches(), strict=True):
        for name, array in run(session, feeds).items():
            np.testing.assert_allclose(own[name], array, rtol=1e-5, atol=1e-5)
    whole = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if ram_bytes >= whole:
        assert not sizes
    else:
        assert len(sizes) > 1 and max(sizes) <= max(ram_bytes, 8 * 8 * 9 * 4 + 8 * 4)
