"""Levels of recurrent layers: what they lose, how zeros are spread over them, and budgets of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api.loss_curves import LossCurves, loss_curves
from prunec.api.options import PlanOptions
from prunec.api.progress import silent
from prunec.frontend.calibration import Calibration, open_calibration
from prunec.passes.compensate.recurrent_layer import RecurrentLayer
from prunec.passes.sparsify.supernet import Supernet, Ways
from prunec.passes.sparsify.views import constants, prunable_layers
from prunec.patterns import parse
from prunec.plan.layers import DENSE
from prunec.plan.levels import grid
from prunec.statistics.output_errors import OutputErrors
from tests.api.test_zero_timing import machine as machine
from tests.graph.builder import Builder

GAINS = {"loud": 4.0, "quiet": 0.25}
HIDDEN = 16


def recurrent(op: str = "LSTM") -> ir.Model:
    """Two equal recurrent layers of independent inputs, what they put out multiplied by their gains."""
    gates = {"LSTM": 4, "GRU": 3}[op]
    b = Builder(0)
    x = b.input("x", [6, 8, 2 * HIDDEN])
    halves = b.op("Split", [x, b.const(np.array([HIDDEN, HIDDEN]))], outputs=2, axis=2)
    w, r = (0.5 * b.rng.standard_normal((2, gates * HIDDEN, HIDDEN)) for _ in range(2))
    found = None
    for half, (name, gain) in zip(halves, GAINS.items(), strict=True):
        weights = [b.const(own[:1].astype(np.float32), f"{kind}_{name}") for kind, own in (("w", w), ("r", r))]
        y, *_ = b.op(op, [half, *weights], outputs=2, hidden_size=HIDDEN)
        own = b.op("Mul", [y, b.const(np.float32(gain), f"gain_{name}")])
        found = own if found is None else b.op("Add", [found, own])
    b.output(found)
    return b.model()


def data(model: ir.Model) -> Calibration:
    rng = np.random.default_rng(5)
    shape = [int(d) for d in model.graph.inputs[0].shape or ()]
    batches = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(20)]
    return open_calibration(batches, model, samples=20 * shape[0])


def curves(model: ir.Model, source: str, pattern: str = "unstructured") -> LossCurves:
    layers = {name: own for name, own in prunable_layers(model).items() if isinstance(own, RecurrentLayer)}
    asked = PlanOptions(target="onnx", pattern=pattern, losses=source)
    return loss_curves(layers, model, parse(pattern), "loss", data(model), asked, silent)


def named(model: ir.Model, name: str) -> str:
    return next(n.name or "" for n in model.graph if len(n.inputs) > 1 and (n.inputs[1].name or "") == f"w_{name}")  # type: ignore[union-attr]


@pytest.mark.parametrize("source", ["masked", "solved", "zeroth-order"])
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_every_source_finds_the_order_of_gains(source: str, op: str) -> None:
    model = recurrent(op)
    found = curves(model, source).curves
    loud, quiet = (found[named(model, name)] for name in GAINS)
    assert loud[16] / quiet[16] == pytest.approx(256, rel=0.3) and loud[0] == 0 and (np.diff(loud) >= 0).all()


def test_solved_layers_lose_less_than_masked_ones_and_are_put_together() -> None:
    model = recurrent()
    solved, masked = (curves(model, source).curves[named(model, "loud")] for source in ("solved", "masked"))
    half = int(np.searchsorted(grid(), 0.5))
    assert solved[half] < 0.9 * masked[half]
    one, two = (named(model, name) for name in GAINS)
    with Supernet(model, [one, two], Ways(parse("unstructured"), (0.5, 0.75), "quick"), data(model)) as found:
        other = found.assembled({one: 0.75})
    zeros = {name: float((own == 0).mean()) for name, own in _weights(other).items()}
    assert zeros[one] == pytest.approx(0.75, abs=0.01) and zeros[two] == 0
    assert OutputErrors(model, data(model), 40).of(other) == pytest.approx(solved[24], rel=0.3)


def _weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {n: np.concatenate([w.ravel() for w in constants(own)]) for n, own in prunable_layers(model).items()}


@pytest.mark.parametrize("allocation", ["erk", "lamp", "global", "loss"])
def test_allocations_spread_zeros_over_them(tmp_path: Path, allocation: str) -> None:
    ir.save(recurrent(), tmp_path / "model.onnx")
    made = prunec.plan(
        tmp_path / "model.onnx", pattern="unstructured", sparsity=0.6, allocation=allocation, include=["*"], samples=80
    ).plan
    levels = {layer.tensor: layer.level for layer in made.layers}
    assert sum(levels.values()) / 2 == pytest.approx(0.6, abs=1e-5)
    if allocation == "loss":
        assert levels["w_quiet"] > levels["w_loud"] + 0.1


def test_erk_knows_all_gates_of_a_layer(tmp_path: Path) -> None:
    """(outputs + inputs) / (outputs · inputs) of [W R], whatever sums it is refitted in."""
    b = Builder(0)
    x = b.input("x", [6, 8, HIDDEN])
    outputs = []
    for op, gates in (("LSTM", 4), ("GRU", 3)):
        weights = [b.weight(1, gates * HIDDEN, HIDDEN) for _ in range(2)]
        outputs.append(b.op(op, [x, *weights], outputs=2, hidden_size=HIDDEN)[0])
    b.output(b.op("Add", outputs))
    ir.save(b.model(), tmp_path / "model.onnx")
    own = {"sparsity": 0.8, "allocation": "erk", "include": ["*"], "samples": 80}
    made = prunec.plan(tmp_path / "model.onnx", pattern="unstructured", **own).plan
    kept = [1 - layer.level for layer in made.layers]
    lengths = [(gates * HIDDEN, 2 * HIDDEN) for gates in (4, 3)]
    wanted = [(rows + columns) / (rows * columns) for rows, columns in lengths]
    assert kept[1] / kept[0] == pytest.approx(wanted[1] / wanted[0], rel=1e-3)


def test_a_speedup_is_met_by_zeros_in_recurrent_layers(tmp_path: Path) -> None:
    ir.save(recurrent(), tmp_path / "model.onnx")
    own = {"target": "cpu", "include": ["*"], "samples": 80, "solver": "fast", "cache": False}
    found = prunec.plan(tmp_path / "model.onnx", speedup=1.7, allocation="loss", **own).plan
    levels = {layer.tensor: layer.level for layer in found.layers if layer.pattern != DENSE}
    assert found.time is not None and found.time.share <= 1 / 1.7 and levels["w_quiet"] > 0
    assert levels.get("w_loud", 0) < levels["w_quiet"]
    assert found.losses == "solved"  # two layers: that costs little
    masked = prunec.plan(tmp_path / "model.onnx", speedup=1.7, losses="masked", **own).plan
    plain = prunec.compile(
        tmp_path / "model.onnx", speedup=1.7, allocation="loss", compensate=False, dry_run=True, **own
    )
    assert masked.losses == plain.plan.losses == "masked"
    best = prunec.plan(tmp_path / "model.onnx", speedup=1.5, **own).plan
    assert [one.way for one in best.contest] == ["loss", "uniform", "erk", "lamp"] and best.allocation == "loss"
