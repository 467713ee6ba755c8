"""Errors of cuts at the outputs, with the consumers refitted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from prunec.criteria import create
from prunec.criteria.base import ScoreContext
from prunec.diagnostics import PrunecError
from prunec.plan.cells import split_cells
from prunec.plan.curves import Curves
from prunec.statistics import collect
from prunec.statistics.cut_errors import CutErrors
from tests.criteria.small import free, prepare
from tests.graph.builder import Builder


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
