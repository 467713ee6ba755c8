"""Gradient criteria on networks whose gradients are known on paper."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from prunec.criteria import ScoreContext, create
from prunec.diagnostics import PrunecError
from prunec.graph import Analysis
from prunec.statistics import collect
from tests.criteria.small import attention, chain, free, grouped, prepare
from tests.graph.builder import Builder

pytest.importorskip("torch", reason="needs the [torch] extra")
gradients = pytest.importorskip("prunec.statistics.gradients")
pytestmark = pytest.mark.torch

X = np.array([0.5, -1.0, 2.0], np.float32)


class Same:
    """Calibration data that repeats one input."""

    fingerprint = "same"

    def __init__(self, feeds: dict[str, np.ndarray], count: int) -> None:
        self.feeds, self.count = feeds, count

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        return (dict(self.feeds) for _ in range(self.count))

    held_out = fit


def net(end: str | None, outputs: int = 1) -> tuple[ir.Model, Analysis, np.ndarray, np.ndarray]:
    """y = end(B A x) with A [5, 3] and B [outputs, 5], and the two matrices."""
    b = Builder(3)
    x = b.input("x", [1, 3])
    hidden = b.op("Gemm", [x, b.weight(5, 3, name="A")], transB=1)
    y = b.op("Gemm", [hidden, b.weight(outputs, 5, name="B")], transB=1)
    b.output(b.op(end, [y], axis=-1) if end == "Softmax" else y if end is None else b.op(end, [y]))
    model, analysis = prepare(b.model())
    first, second = (model.graph.initializers[name].const_value.numpy().astype(float) for name in "AB")
    return model, analysis, first, second


def collected(
    model: ir.Model, analysis: Analysis, count: int = 4, relevance: bool = False
) -> gradients.GradientStatistics:
    return gradients.collect_gradients(model, analysis, Same({"x": X[None]}, count), relevance=relevance)


def score(name: str, model: ir.Model, analysis: Analysis, found: object) -> np.ndarray:
    moments = collect(model, analysis, Same({"x": X[None]}, 4), frozenset({"moments"}))
    context = ScoreContext(model, analysis, moments, gradients=found)  # type: ignore[arg-type]
    (group,) = free(analysis)
    return create(name).score(group, context)


def test_taylor_is_the_share_of_each_channel_in_the_output() -> None:
    """y = Σ b_c a_c·x: Σ w·g of channel c is b_c (a_c·x) times what all channels share."""
    model, analysis, a, b = net(None)
    expected = np.abs(b[0] * (a @ X))
    scores = score("taylor", model, analysis, collected(model, analysis))
    assert np.allclose(scores / scores.sum(), expected / expected.sum(), rtol=1e-5)


def test_fisher_sums_squares_weight_by_weight() -> None:
    """∂y/∂a_ck = b_c x_k."""
    model, analysis, a, b = net(None)
    expected = (a**2 * b[0][:, None] ** 2 * X[None] ** 2).sum(axis=1)
    scores = score("fisher", model, analysis, collected(model, analysis))
    assert np.allclose(scores / scores.sum(), expected / expected.sum(), rtol=1e-5)


def test_relevance_of_real_outputs_starts_from_their_squares() -> None:
    """f = ½y²: h_c ∂f/∂h_c = h_c b_c y."""
    model, analysis, a, b = net(None)
    h = a @ X
    scores = score("lrp", model, analysis, collected(model, analysis, relevance=True))
    assert np.allclose(scores, np.abs(h * b[0] * (b[0] @ h)), rtol=1e-5)


@pytest.mark.parametrize("end", ["Softmax", "Sigmoid"])
def test_relevance_of_decisions_starts_from_the_largest_score(end: str) -> None:
    model, analysis, a, b = net(end, 4)
    h = a @ X
    scores = score("lrp", model, analysis, collected(model, analysis, relevance=True))
    assert np.allclose(scores, np.abs(h * b[np.argmax(b @ h)]), rtol=1e-5)


@pytest.mark.parametrize(("end", "outputs"), [("Softmax", 4), ("LogSoftmax", 4), ("Sigmoid", 4), (None, 4)])
def test_squared_gradients_tend_to_the_fisher_information(end: str | None, outputs: int) -> None:
    """E[(∂ log p/∂B_ic)²] = F_ii h_c², F the Fisher information of the scores."""
    model, analysis, a, b = net(end, outputs)
    h = a @ X
    y = b @ h
    p = np.exp(y - y.max()) / np.exp(y - y.max()).sum()
    s = 1 / (1 + np.exp(-y))
    fisher = {None: np.full(outputs, 1 / (y**2).mean()), "Sigmoid": s * (1 - s)}.get(end, p * (1 - p))
    found = collected(model, analysis, count=gradients.MOST_SAMPLES).squares["B"]
    assert found.shape == b.shape
    assert np.allclose(found.sum(axis=1) / (h**2).sum(), fisher, rtol=0.35)
    assert np.allclose(found / found[:, :1], (h**2 / h[0] ** 2)[None], rtol=1e-4)


def test_gblm_is_wanda_with_gradients() -> None:
    model, analysis, a, b = net(None)
    found = collected(model, analysis)
    size, norm = np.abs(a @ X), np.sqrt(found.squares["B"][0])
    expected = np.abs(b[0]) * (size / size.mean() + norm / norm.mean())
    assert np.allclose(score("gblm", model, analysis, found), expected, rtol=1e-5)


def test_coupled_producers_are_summed_before_the_absolute_value() -> None:
    """Two layers that cancel: h = (A − A) x. Each alone matters, the channel does not."""
    b = Builder(3)
    x = b.input("x", [1, 3])
    weight = b.rng.standard_normal((5, 3)).astype(np.float32)
    first, second = (b.op("Gemm", [x, b.const(w)], transB=1) for w in (weight, -weight))
    offset = b.const(np.ones(5, np.float32))
    b.output(b.op("Gemm", [b.op("Add", [b.op("Add", [first, second]), offset]), b.weight(2, 5)], transB=1))
    model, analysis = prepare(b.model())
    found = collected(model, analysis)
    assert np.allclose(score("taylor", model, analysis, found), 0, atol=1e-6)
    assert (score("fisher", model, analysis, found) > 1e-4).all()


def test_samples_are_summed_after_the_absolute_value() -> None:
    model, analysis, a, b = net(None)

    class Signs(Same):
        def fit(self) -> Iterator[dict[str, np.ndarray]]:
            return ({"x": sign * X[None]} for sign in (1, -1))

    found = gradients.collect_gradients(model, analysis, Signs({}, 2))
    (group,) = free(analysis)
    assert found.count == 2 and (found.products[group.id] > 1e-6 * np.abs(b[0] * (a @ X)).max()).all()


@pytest.mark.parametrize("build", [chain, grouped, attention])
@pytest.mark.parametrize("name", ["taylor", "fisher", "gblm", "lrp"])
def test_every_group_gets_finite_scores_that_differ(name: str, build: object) -> None:
    model, analysis = prepare(build())  # type: ignore[operator]
    rng = np.random.default_rng(0)
    shape = list(model.graph.inputs[0].shape or ())
    data = Same({"x": rng.standard_normal(shape).astype(np.float32)}, 3)
    criterion = create(name)
    moments = collect(model, analysis, data, criterion.needs & {"moments"})
    found = gradients.collect_gradients(model, analysis, data, relevance="relevance" in criterion.needs)
    context = ScoreContext(model, analysis, moments, gradients=found)
    for group in free(analysis):
        scores = criterion.score(group, context)
        assert scores.shape == (group.size,) and np.isfinite(scores).all()
        assert len(np.unique(scores)) > 1


def test_the_same_seed_gives_the_same_numbers() -> None:
    model, analysis, _, _ = net("Softmax", 4)
    first, second = (collected(model, analysis).squares["A"] for _ in range(2))
    assert np.array_equal(first, second)


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model, analysis, _, _ = net(None)
    with pytest.raises(PrunecError, match="PC030") as caught:
        collected(model, analysis)
    assert "prunec[torch]" in str(caught.value.diagnostic.hint)


def test_without_gradients_there_is_no_score() -> None:
    model, analysis, _, _ = net(None)
    with pytest.raises(PrunecError, match="PC210"):
        score("taylor", model, analysis, None)
