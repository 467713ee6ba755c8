"""Recurrent layers with patterns: every kind of cell, proved, and closer to the dense layer than masks alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from prunec.graph.shapes import constant
from prunec.passes.compensate import Compensated, Options, compensate
from prunec.passes.compensate.recurrent_layer import GATES, R, W
from prunec.passes.sparsify import LayerPattern, Sparsifier, prove_patterns
from prunec.patterns import parse
from prunec.plan.layers import choose_layers, refusals
from tests.cli.helpers import prunec
from tests.graph.builder import Builder
from tests.graph.checks import prepare
from tests.passes.compensate_samples import Data, dense_model, input_shape
from tests.passes.recurrent_samples import CELLS, HIDDEN, net, stacked


def sparsified(
    model: ir.Model, analysis: object, name: str, level: float | None = None, **options: object
) -> tuple[Compensated, Sparsifier]:
    pattern = parse(name)
    level = pattern.level(level)
    layers = {n.name or "": LayerPattern(pattern, level) for n in model.graph if n.op_type in GATES}
    assert layers and not refusals(model, layers)
    solver = Sparsifier(layers, "fast")
    data = Data(input_shape(model), fit=40, held=10)
    whole = analysis.alive({})  # type: ignore[attr-defined]
    own = Options(residual=False, **options)  # type: ignore[arg-type]
    return compensate(model, model, analysis, whole, data, own, None, solver), solver  # type: ignore[arg-type]


def weights(model: ir.Model) -> list[np.ndarray]:
    found = [constant(node.inputs[i]) for node in model.graph if node.op_type in GATES for i in (W, R)]
    return [array for array in found if array is not None]


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_gets_its_pattern_and_comes_closer_than_its_mask(cell: str) -> None:
    model, analysis = dense_model(net(cell))
    found, solver = sparsified(model, analysis, "1:2")
    (proof,) = prove_patterns(found.model, solver.layers).values()
    assert proof.passed and proof.zeros == pytest.approx(0.5)
    for array in weights(found.model):
        assert (array.reshape(*array.shape[:2], -1, 2) != 0).sum(axis=3).max() == 1
    assert all(p.passed for p in prove_patterns(solver.baseline, solver.layers).values())
    (result,) = solver.results.values()
    assert result.error < result.error_plain and found.error_chosen < found.error_none


@pytest.mark.parametrize(("name", "level"), [("unstructured", 0.7), ("block:4x2", 0.5), ("vnm:12:2:6", None)])
def test_other_patterns(name: str, level: float | None) -> None:
    b = Builder(seed=3)
    x = b.input("x", [9, 8, 12])
    w, r = (b.weight(1, 4 * 12, 12) for _ in range(2))
    y = b.op("LSTM", [x, w, r, b.weight(1, 8 * 12)], outputs=3, hidden_size=12)[0]
    b.output(b.linear(b.reshape(y, [9, 8, -1]), 5))
    model, analysis = prepare(b.model())
    found, solver = sparsified(model, analysis, name, level)
    (proof,) = prove_patterns(found.model, solver.layers).values()
    assert proof.passed and proof.zeros >= (level or 0.66)
    (result,) = solver.results.values()
    assert result.error < result.error_plain


def test_layers_on_top_of_each_other() -> None:
    b = Builder(seed=3)
    b.output(stacked(b))
    model, analysis = prepare(b.model())
    found, solver = sparsified(model, analysis, "2:4")
    assert len(solver.results) == 2 and found.error_chosen < found.error_none
    assert all(proof.passed for proof in prove_patterns(found.model, solver.layers).values())


def test_without_compensation_weights_are_only_masked() -> None:
    model, analysis = dense_model(net("lstm"))
    found, solver = sparsified(model, analysis, "1:2", method="none")
    for array, dense in zip(weights(found.model), weights(model), strict=True):
        assert np.array_equal(array, np.where(array != 0, dense, 0))
    assert [result.method for result in solver.results.values()] == ["mask"]


def test_cells_that_no_sample_reaches_keep_their_largest_weights() -> None:
    b = Builder(seed=3)
    x, lengths = b.input("x", [9, 8, 4]), b.const(np.zeros(8, np.int32))
    y = b.op("GRU", [x, b.weight(1, 24, 4), b.weight(1, 24, 8), "", lengths], outputs=2, hidden_size=8)[0]
    b.output(b.linear(b.reshape(y, [9, 8, 8]), 5))
    model, analysis = prepare(b.model())
    found, solver = sparsified(model, analysis, "2:4")
    assert [result.notes for result in solver.results.values()] == [("by magnitude: no calibration sample reaches it",)]
    assert all(proof.passed for proof in prove_patterns(found.model, solver.layers).values())
    for array, dense in zip(weights(found.model), weights(model), strict=True):
        groups, old = (np.abs(a.reshape(-1, 4)) for a in (array, dense))
        assert np.array_equal(np.sort(groups, axis=1)[:, 2:], np.sort(old, axis=1)[:, 2:])


def test_a_planted_weight_is_found() -> None:
    model, analysis = dense_model(net("gru"))
    found, solver = sparsified(model, analysis, "1:2")
    node = next(node for node in found.model.graph if node.op_type == "GRU")
    value = node.inputs[R]
    assert value is not None and value.const_value is not None
    array = value.const_value.numpy().copy()
    array[0, 0, :2] = 1
    value.const_value = ir.tensor(array, name=value.name)
    assert [proof.passed for proof in prove_patterns(found.model, solver.layers).values()] == [False]


def test_a_pattern_has_to_fit_inputs_and_states() -> None:
    model, _ = dense_model(net("lstm"))  # 6 inputs, 8 states
    lstm = next(plan for plan in choose_layers(model, parse("2:4"), 0.5) if plan.tensor and "lstm" in plan.node)
    assert lstm.pattern == "dense" and lstm.why == "W: 2:4 needs input channels in multiples of 4, there are 6"
    blocks = next(plan for plan in choose_layers(model, parse("block:16x1"), 0.5) if "lstm" in plan.node)
    assert blocks.why == f"W: block:16x1 needs output channels in multiples of 16, there are {HIDDEN}"


def test_from_the_command_line(tmp_path: Path) -> None:
    b = Builder(seed=3)
    b.output(net("lstm, both ways")(b))
    ir.save(b.model(), tmp_path / "model.onnx")
    options = ("--pattern", "unstructured", "--sparsity", "0.6", "--no-measure", "--samples", "64", "--solver", "fast")
    done = prunec("compile", "model.onnx", *options, "-o", "out", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    layers = json.loads((tmp_path / "out" / "plan.json").read_text())["layers"]
    assert [layer["pattern"] for layer in layers] == ["unstructured", "unstructured", "dense"]
    records = done.json["verification"]["patterns"]["layers"]
    assert len(records) == 2 and all(layer["passed"] for layer in records)
    assert records[1]["error"] < records[1]["error_plain"]
