"""Errors of cuts at the outputs, with the consumers refitted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.onnx.session import make_session
from prunec.criteria import create
from prunec.criteria.base import ScoreContext
from prunec.diagnostics import PrunecError
from prunec.graph import analyse
from prunec.passes.canonicalise import canonicalise
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer
from prunec.passes.mask_channels import mask_channels
from prunec.plan.cells import split_cells
from prunec.plan.curves import Curves
from prunec.statistics import collect
from prunec.statistics.cut_errors import CutErrors
from prunec.statistics.output_errors import OutputErrors, Reference
from tests.criteria.small import free, prepare
from tests.graph.builder import Builder
from tests.graph.checks import random_alive, random_feeds
from tests.graph.micros_residual import RESIDUALS
from tests.graph.test_micro import MICROS


class Data:
    """Random images, the last eight held out."""

    fingerprint = "random"

    def __init__(self, shape: tuple[int, ...] = (1, 3, 6, 6), held_out: int = 8) -> None:
        rng = np.random.default_rng(0)
        self._all = [rng.standard_normal(shape).astype(np.float32) for _ in range(120 + held_out)]
        self._split = 120

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": x} for x in self._all[: self._split])

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        return ({"x": x} for x in self._all[self._split :])


def twice(kind: str, *, seed: int = 0) -> ir.Model:
    """A layer of 16 channels of which 8 repeat the others (scaled), a Relu, and a consumer of `kind`."""
    b = Builder(seed)
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((8, 3, 1, 1))
    weight = np.concatenate([half, half * rng.uniform(0.5, 2, (8, 1, 1, 1))]).astype(np.float32)
    y = b.relu(b.op("Conv", [b.input("x", [1, 3, 6, 6]), b.const(weight, "w")]))
    if kind == "conv":
        b.output(b.conv(y, 5, 1))
    elif kind == "grouped":
        b.output(b.conv(y, 8, 1, group=2))
    else:
        b.output(b.linear(b.op("Transpose", [y], perm=[0, 2, 3, 1]), 5))
    return b.model()


def curves(model: ir.Model, data: Data) -> tuple[Curves, CutErrors]:
    canonical, analysis = prepare(model)
    context = ScoreContext(canonical, analysis, collect(canonical, analysis, data, create("obs").needs))
    scores = {g.id: create("obs").score(g, context) for g in free(analysis)}
    errors = CutErrors(canonical, analysis, data, 8)
    return Curves(context, {g.id: g for g in free(analysis)}, scores, errors, greedy=True), errors


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_what_others_can_replace_costs_nothing_at_the_outputs(kind: str) -> None:
    found, errors = curves(twice(kind), Data())
    (group,) = found.groups.values()
    (cell,) = split_cells(found.context.analysis, [group])
    order, rises = found.rank(cell, np.zeros(cell.size, bool))
    losses = np.cumsum(rises[::-1])
    assert losses[7] < 1e-3 and losses[-1] > 0.3
    alive = np.ones(found.context.analysis.channel_count, bool)
    alive[group.channels[order[8:]]] = False
    assert errors.error(alive, []) > 30 * losses[7]


def test_whole_models_have_no_error_and_nothing_but_the_bias_is_left_of_empty_layers() -> None:
    found, errors = curves(twice("conv"), Data())
    (group,) = found.groups.values()
    alive = np.ones(found.context.analysis.channel_count, bool)
    assert errors.error(alive, []) == 0
    alive[group.channels] = False
    assert 0.5 < errors.error(alive, []) <= 1.5


def test_groups_of_a_convolution_are_refitted_apart() -> None:
    """The repeated channels are in the other group, which cannot replace them."""
    found, _ = curves(twice("grouped"), Data())
    (cell,) = split_cells(found.context.analysis, list(found.groups.values()))
    order, rises = found.rank(cell, np.zeros(cell.size, bool))
    assert sorted(order.tolist()) == list(range(cell.size)) and (rises >= 0).all()
    assert rises[::-1][: cell.size // 2].sum() > 0.01


def test_without_held_out_data() -> None:
    canonical, analysis = prepare(twice("conv"))
    with pytest.raises(PrunecError) as caught:
        CutErrors(canonical, analysis, Data(held_out=0), 8)
    assert caught.value.diagnostic.code == "PC331"


@pytest.mark.parametrize("kind", ["conv", "grouped", "linear"])
def test_the_error_is_that_of_the_masked_model_with_new_weights(kind: str) -> None:
    """Without padding, what a consumer is shown and what it would do with other weights are the same."""
    found, errors = curves(twice(kind), Data())
    model, analysis = found.context.model, found.context.analysis
    (group,) = found.groups.values()
    (cell,) = split_cells(analysis, [group])
    gone = np.random.default_rng(3).choice(group.size, group.size // 2 + 1, replace=False)
    alive = np.ones(analysis.channel_count, bool)
    alive[group.channels[gone]] = False
    parts = [part for own in found.context.readers(group) for part, _ in found._problems(*own, cell)]
    refits = [refit for part in parts if (refit := part.refit(gone)) is not None]
    assert len(refits) == (2 if kind == "grouped" else 1)
    masked = mask_channels(model, analysis, alive)
    layer = next(own for own in find_layers(masked)[0] if own.name == refits[0].node)
    assert isinstance(layer, Layer)
    matrix, bias = layer.matrix().copy(), layer.bias().copy()
    outputs = matrix.shape[1]
    for refit in refits:
        left = np.delete(np.arange(matrix.shape[3]), refit.removed)
        lost = matrix[refit.part, :, 0][:, refit.removed]
        matrix[refit.part, :, 0, left] += (lost @ refit.transfer).T
        rows = slice(refit.part * outputs, (refit.part + 1) * outputs)
        if layer.can_shift:
            bias[rows] += lost @ (refit.mean[refit.removed] - refit.transfer @ refit.mean[left])
    layer.write(masked.graph, matrix, bias)
    wanted = OutputErrors(model, Data(), 8).of(masked)
    assert wanted > 1e-4
    assert errors.error(alive, refits) == pytest.approx(wanted, rel=1e-3)


class Feeds:
    """Random inputs of any model; all of them are held out."""

    fingerprint = "random"

    def __init__(self, model: ir.Model) -> None:
        rng = np.random.default_rng(0)
        self._all = [random_feeds(model, rng) for _ in range(2)]

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self._all)

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self._all)


MOE = {"experts_fused", "experts_fused_gated"}
"""ONNX Runtime's own operator gives other numbers where its input is an output of the session as well."""
RUNNABLE = [name for name in MICROS if MICROS[name].free and name not in MOE]


@pytest.mark.parametrize("name", [*RUNNABLE, *(f"residual {name}" for name in RESIDUALS)])
def test_errors_without_refits_are_those_of_the_masked_model(name: str) -> None:
    micro = MICROS[name] if name in MICROS else RESIDUALS[name.removeprefix("residual ")]
    builder = Builder(opset=micro.opset)
    micro.build(builder)
    model = canonicalise(builder.model())
    analysis = analyse(model, residual=name not in MICROS)
    data = Feeds(model)
    errors = CutErrors(model, analysis, data, 1000)
    assert errors.error(np.ones(analysis.channel_count, bool), []) == 0
    dense = Reference(answers(model, data))
    for seed in range(2):
        alive = random_alive(analysis, 0.5, np.random.default_rng(seed))
        wanted = dense.error(answers(mask_channels(model, analysis, alive), data))
        assert errors.error(alive, []) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def answers(model: ir.Model, data: Feeds) -> Iterator[list[np.ndarray]]:
    """Without optimisations, which quantise other values in parts than in a whole model."""
    session = make_session(model, optimise=False)
    return (session.run(None, feeds) for feeds in data.held_out())
