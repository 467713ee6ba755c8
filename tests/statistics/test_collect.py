"""Statistics of layers against numpy on the layers' full inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx.session import make_session, run
from prunec.cache import Cache
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.statistics import LayerStatistics, Limits, collect
from prunec.statistics.collect import inverse_diagonal
from tests.graph.builder import Builder
from tests.graph.checks import prepare

BOTH = frozenset({"moments", "covariance"})


class Data:
    """Batches of normal inputs, the same at every pass."""

    def __init__(self, shape: list[int], batches: int = 5, *, value: float | None = None) -> None:
        rng = np.random.default_rng(0)
        self.batches = [rng.standard_normal(shape).astype(np.float32) + 0.5 for _ in range(batches)]
        if value is not None:
            self.batches[-1][..., 0] = value
        self.passes = 0

    fingerprint = "data"

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        self.passes += 1
        return ({"x": batch} for batch in self.batches)

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(())


def net() -> tuple[ir.Model, Analysis]:
    b = Builder(seed=1)
    x = b.input("x", [2, 3, 8, 8])
    y = b.relu(b.conv(b.relu(b.conv(x, 12)), 8, stride=2))
    y = b.reshape(y, [2, -1])
    b.output(b.gemm(b.relu(b.gemm(y, 10)), 4))
    return prepare(b.model())


def inputs_of(model: ir.Model, analysis: Analysis, data: Data) -> dict[str, np.ndarray]:
    """[positions, channels] of every consumer's input, from one run with everything as an output."""
    nodes = {node.name: node for node in model.graph}
    found = {}
    for consumer in analysis.consumers:
        value = nodes[consumer.node].inputs[consumer.data_index]
        assert value is not None and value.name is not None
        session = make_session(model, outputs=[value.name])
        rows = [np.moveaxis(run(session, {"x": x})[value.name], consumer.axis, -1) for x in data.batches]
        found[consumer.node] = np.concatenate([r.reshape(-1, r.shape[-1]) for r in rows]).astype(np.float64)
    return found


def test_moments_and_covariance_are_numpys() -> None:
    (model, analysis), data = net(), Data([2, 3, 8, 8])
    found = collect(model, analysis, data, BOTH)
    full = inputs_of(model, analysis, data)
    assert set(found) == set(full) and len(found) >= 3
    for node, own in found.items():
        rows = full[node]
        assert own.count == len(rows)
        assert own.limited is None and own.covariance is not None
        np.testing.assert_allclose(own.mean, rows.mean(axis=0), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(own.second_moment_diag, np.square(rows).mean(axis=0), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(own.covariance, np.cov(rows, rowvar=False, bias=True), rtol=1e-4, atol=1e-6)


def test_the_inverse_diagonal_is_that_of_the_damped_inverse() -> None:
    rng = np.random.default_rng(0)
    covariance = np.cov(rng.standard_normal((50, 8)) @ rng.standard_normal((8, 8)), rowvar=False)
    damped = covariance + 0.01 * np.diag(np.diagonal(covariance))
    np.testing.assert_allclose(inverse_diagonal(covariance), np.diagonal(np.linalg.inv(damped)), rtol=1e-9)
    assert np.isfinite(inverse_diagonal(np.zeros((3, 3)))).all()


def test_several_runs_give_what_one_gives() -> None:
    model, analysis = net()
    data = Data([2, 3, 8, 8])
    one = collect(model, analysis, data, BOTH)
    assert data.passes == 1
    many = collect(model, analysis, data, BOTH, limits=Limits(bytes_at_once=1))
    assert data.passes > 3
    assert_same(one, many)


def test_positions_are_sampled_for_covariances_only() -> None:
    model, analysis = net()
    data = Data([2, 3, 8, 8], 60)
    whole, part = (collect(model, analysis, data, BOTH, limits=Limits(positions=n)) for n in (4096, 16))
    again = collect(model, analysis, data, BOTH, limits=Limits(positions=16))
    assert_same(part, again)
    for node in whole:
        np.testing.assert_array_equal(part[node].mean, whole[node].mean)
        assert part[node].count == whole[node].count
        a, b = part[node].covariance, whole[node].covariance
        assert a is not None and b is not None
        assert np.abs(a - b).max() < 0.3 * np.abs(b).max()


def test_a_long_axis_has_no_covariance_and_says_why() -> None:
    model, analysis = net()
    found = collect(model, analysis, Data([2, 3, 8, 8]), BOTH, limits=Limits(channels=20))
    limited = [own for own in found.values() if own.limited]
    assert len(limited) == 1 and "128 channels, above the limit of 20" in str(limited[0].limited)
    assert limited[0].covariance is None and limited[0].inverse_diag is None
    moments = collect(model, analysis, Data([2, 3, 8, 8]), frozenset({"moments"}))
    assert all(own.covariance is None and own.limited is None for own in moments.values())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_name_the_place(value: float) -> None:
    model, analysis = net()
    with pytest.raises(PrunecError, match="PC330") as error:
        collect(model, analysis, Data([2, 3, 8, 8], value=value), BOTH)
    assert error.value.diagnostic.where is not None and error.value.diagnostic.hint is not None


def test_no_samples_is_an_error_and_no_needs_are_no_work() -> None:
    model, analysis = net()
    with pytest.raises(PrunecError, match="PC331"):
        collect(model, analysis, Data([2, 3, 8, 8], 0), BOTH)
    assert collect(model, analysis, Data([2, 3, 8, 8], 0), frozenset()) == {}


def test_the_cache_answers_until_something_changes(tmp_path: Path) -> None:
    model, analysis = net()
    data, cache = Data([2, 3, 8, 8]), Cache(tmp_path)
    first = collect(model, analysis, data, BOTH, cache=cache)
    again = collect(model, analysis, data, BOTH, cache=cache)
    assert data.passes == 1
    assert_same(first, again)
    collect(model, analysis, data, frozenset({"moments"}), cache=cache)
    assert data.passes == 2
    weight = next(v for v in model.graph.initializers.values() if v.const_value is not None and v.const_value.size > 9)
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * 2, name=weight.name)
    collect(model, analysis, data, BOTH, cache=cache)
    assert data.passes == 3
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    collect(model, analysis, data, BOTH, cache=cache)
    assert data.passes == 4 and [warning.code for warning in cache.warnings] == ["PC616"]


def assert_same(one: dict[str, LayerStatistics], other: dict[str, LayerStatistics]) -> None:
    assert list(one) == list(other)
    for node, own in one.items():
        for name in ("mean", "second_moment_diag", "covariance", "inverse_diag"):
            a, b = getattr(own, name), getattr(other[node], name)
            assert (a is None) == (b is None)
            assert a is None or a.tobytes() == b.tobytes()
        assert (own.count, own.limited) == (other[node].count, other[node].limited)


def test_an_expert_that_no_sample_reaches_says_so() -> None:
    """Routed layers may see no token at all: their statistics are zero, with the reason."""
    b = Builder(seed=3)
    x = b.input("x", [4, 6])
    high = b.op(
        "Cast",
        [b.op("Greater", [b.op("Slice", [x, *(b.const(np.array([i])) for i in (0, 1, 1))]), b.const(np.float32(1e3))])],
        to=1,
    )
    rows = b.op("Squeeze", [b.op("NonZero", [b.op("Squeeze", [high, b.const(np.array([1]))])]), b.const(np.array([0]))])
    y = b.linear(b.linear(x, 8), 8)
    y = b.op(
        "ScatterND", [y, b.op("Unsqueeze", [rows, b.const(np.array([1]))]), b.linear(b.op("Gather", [y, rows]), 8)]
    )
    b.output(b.linear(y, 3))
    model, analysis = prepare(b.model())
    found = collect(model, analysis, Data([4, 6]), BOTH)
    (unseen,) = [seen for seen in found.values() if not seen.count]
    assert unseen.limited == "no calibration sample reaches it" and unseen.covariance is None
    assert unseen.mean.shape == (8,) and not unseen.second_moment_diag.any()
