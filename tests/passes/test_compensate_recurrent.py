"""Recurrent layers: their sums are those of ONNX Runtime's cells, in every form; what refits restore."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from scipy.special import expit

from prunec.graph.rules.base import attribute
from prunec.passes.compensate import Compensated, Options, compensate
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.recurrent_layer import RecurrentLayer
from prunec.passes.compensate.recurrent_rows import Cell, Steps, steps, sums
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import prepare
from tests.passes.compensate_samples import Case, Data, random_case, redundant_case
from tests.passes.recurrent_samples import BATCH, CELLS, HIDDEN, INPUTS, TIME, layer, net, stacked

SHAPE = [TIME, BATCH, 4]


def refit(case: Case, data: Data | None = None, **options: object) -> Compensated:
    chosen = dataclasses.replace(Options(), **options)  # type: ignore[arg-type]
    return compensate(case.dense, case.cut, case.analysis, case.alive, data or Data(SHAPE), chosen)


def recurrent_records(found: Compensated) -> list:  # type: ignore[type-arg]
    return [record for record in found.records if record.layer.startswith(("lstm", "gru", "rnn"))]


# -- the arithmetic -----------------------------------------------------------------------------------------------
def one_layer(build: Callable[[Builder], list[str]]) -> tuple[ir.Model, RecurrentLayer]:
    b = Builder(seed=1)
    b.output(*build(b))
    model = b.model()
    (found,), skipped = find_layers(model)
    assert not skipped and isinstance(found, RecurrentLayer)
    return model, found


def outputs_from_sums(own: RecurrentLayer, seen: Steps) -> np.ndarray:
    """Y [T, D, b, H] from the sums of every step: gates, peepholes and activations written out here."""
    weights = own.weights()
    positions = np.arange(TIME * BATCH)
    clip = float(attribute(own.node, "clip", np.inf))
    a = [
        sums(p, weights, seen.sources(p, positions, weights)).reshape(
            -1, TIME, BATCH, p.gates.stop - p.gates.start, HIDDEN
        )
        for p in own.parts
    ]
    y = np.zeros((TIME, len(own.backwards), BATCH, HIDDEN))
    for d, backwards in enumerate(own.backwards):
        order = range(TIME - 1, -1, -1) if backwards else range(TIME)
        cell = first_cell(own, d)
        for t in order:
            there = seen.exists[t][:, None]
            h = seen.before[d, t]
            if own.node.op_type == "RNN":
                new = np.tanh(np.clip(a[0][d, t, :, 0], -clip, clip))
            elif own.node.op_type == "GRU":
                update, reset = (expit(np.clip(a[0][d, t, :, k], -clip, clip)) for k in range(2))
                pre = a[1][d, t, :, 0] + (reset * a[2][d, t, :, 0] if len(a) > 2 else 0)
                new = (1 - update) * np.tanh(np.clip(pre, -clip, clip)) + update * h
            else:
                hole = peepholes(own, d)
                i, o, f, c = (a[0][d, t, :, k] for k in range(4))
                i, f = (expit(np.clip(gate + hole[k] * cell, -clip, clip)) for gate, k in ((i, 0), (f, 2)))
                moved = f * cell + i * np.tanh(np.clip(c, -clip, clip))
                new = expit(np.clip(o + hole[1] * moved, -clip, clip)) * np.tanh(moved)
                cell = np.where(there, moved, cell)
            y[t, d] = np.where(there, new, 0)
    return y


def constant_of(own: RecurrentLayer, index: int) -> np.ndarray | None:
    if index >= len(own.node.inputs) or own.node.inputs[index] is None:
        return None
    value = own.node.inputs[index]
    assert value is not None and value.const_value is not None
    return np.asarray(value.const_value.numpy())


def first_cell(own: RecurrentLayer, direction: int) -> np.ndarray:
    found = constant_of(own, 6)
    return np.zeros((BATCH, HIDDEN)) if found is None else found[direction]


def peepholes(own: RecurrentLayer, direction: int) -> np.ndarray:
    found = constant_of(own, 7)
    return np.zeros((3, HIDDEN)) if found is None else found[direction].reshape(3, HIDDEN)


@pytest.mark.parametrize("name", CELLS)
def test_gates_written_out_over_the_sums_are_the_layers_output(name: str) -> None:
    op, direction, options = CELLS[name]
    model, own = one_layer(lambda b: layer(b, b.input("x", [TIME, BATCH, INPUTS]), op, direction, **options))
    x = 2 * np.random.default_rng(1).standard_normal((TIME, BATCH, INPUTS)).astype(np.float32)
    states = Cell(model, own, 1).run({0: x})[0]
    seen = steps(own, {0: x}, x, states)
    np.testing.assert_allclose(outputs_from_sums(own, seen), states, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_parts_cover_every_weight_once(name: str) -> None:
    op, direction, options = CELLS[name]
    _, own = one_layer(lambda b: layer(b, b.input("x", [TIME, BATCH, INPUTS]), op, direction, **options))
    weights, doubled = own.weights(), own.weights()
    for part in own.parts:
        doubled = doubled.with_part(part, 2 * doubled.matrix(part), 2 * doubled.bias(part))
    np.testing.assert_allclose(doubled.w, 2 * weights.w)
    np.testing.assert_allclose(doubled.r, 2 * weights.r)
    if op != "GRU" or not options.get("linear_before_reset"):
        np.testing.assert_allclose(doubled.b.sum(axis=1), 2 * weights.b.sum(axis=1))
    else:
        np.testing.assert_allclose(doubled.b[:, :, 2], 2 * weights.b[:, :, 2])


# -- the refit ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CELLS)
def test_redundant_units_cost_nothing_after_compensation(name: str) -> None:
    found = refit(redundant_case(net(name)))
    (record,) = recurrent_records(found)
    assert record.error_none > 1e-2, "the cut does no harm: nothing is tested"
    assert record.error_chosen < 1e-10 and found.error_chosen < 1e-9


@pytest.mark.parametrize("method", ["bias", "lsq", "auto"])
@pytest.mark.parametrize("name", CELLS)
def test_no_step_makes_the_held_out_error_worse(name: str, method: str) -> None:
    found = refit(random_case(net(name)), method=method)
    assert not found.warnings
    (record,) = recurrent_records(found)
    assert record.error_chosen <= record.error_none
    if method != "bias":
        assert record.method == "lsq" and record.error_chosen < 0.05 * record.error_none
        assert found.error_chosen < 0.2 * found.error_none


def test_stacked_layers_are_refitted_where_only_the_last_state_is_read() -> None:
    found = refit(random_case(stacked))
    records = recurrent_records(found)
    assert [record.method for record in records] == ["lsq", "lsq"]
    assert all(record.error_chosen < 0.1 * record.error_none for record in records)
    assert found.error_chosen < 0.01 * found.error_none


def test_states_and_lengths_may_be_inputs_of_the_model() -> None:
    def build(b: Builder) -> str:
        x = b.linear(b.input("x", SHAPE), INPUTS)
        lengths = b.input("lengths", [BATCH], dtype=6)
        state = b.linear(b.input("state", [1, BATCH, 3]), HIDDEN)
        inputs = [x, b.weight(1, 3 * HIDDEN, INPUTS), b.weight(1, 3 * HIDDEN, HIDDEN), "", lengths, state]
        return b.linear(b.op("GRU", inputs, outputs=2, hidden_size=HIDDEN)[1], 5)

    class More(Data):
        def fed(self, batches: list[np.ndarray], first: int):  # type: ignore[no-untyped-def]
            for number, x in enumerate(batches, first):
                rng = np.random.default_rng(number)
                state = rng.standard_normal((1, BATCH, 3)).astype("f4")
                yield {"x": x, "state": state, "lengths": rng.integers(1, TIME + 1, BATCH).astype("i4")}

        def fit(self):  # type: ignore[no-untyped-def]
            return self.fed(self.batches[: self.split], 0)

        def held_out(self):  # type: ignore[no-untyped-def]
            return self.fed(self.batches[self.split :], self.split)

    found = refit(random_case(build), More(SHAPE))
    (record,) = recurrent_records(found)
    assert record.method == "lsq" and record.error_chosen < 0.1 * record.error_none
    assert found.error_chosen < 0.3 * found.error_none


def test_a_layer_whose_units_nobody_follows_is_refitted_for_its_inputs() -> None:
    def build(b: Builder) -> str:
        """The shape of the data is computed at run time, so no group holds the hidden units."""
        x = b.relu(b.linear(b.relu(b.linear(b.input("x", SHAPE), 12)), INPUTS))
        data = str(b.op("Reshape", [x, b.input("shape", [None], dtype=7)]))  # type: ignore[list-item]
        b.shapes[data] = [TIME, BATCH, INPUTS]
        return b.linear(b.reshape(layer(b, data, "LSTM")[1], [BATCH, HIDDEN]), 3)

    class Shaped(Data):
        def shaped(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {**feeds, "shape": np.array([TIME, BATCH, INPUTS])}

        def fit(self):  # type: ignore[no-untyped-def]
            return map(self.shaped, super().fit())

        def held_out(self):  # type: ignore[no-untyped-def]
            return map(self.shaped, super().held_out())

    case = random_case(build, share=0.75)
    assert [group.size for group in case.analysis.groups if group.pinned is None] == [12]
    (record,) = recurrent_records(refit(case, Shaped(SHAPE)))
    assert record.method == "lsq" and record.error_chosen < record.error_none


def test_a_layer_that_sees_what_the_dense_one_sees_is_left() -> None:
    found = refit(random_case(net("lstm, both ways"), share=0.0))
    (record,) = recurrent_records(found)
    assert (record.method, record.notes) == ("none", ("its input has not changed",))


@pytest.mark.parametrize("trouble", ["constant", "outliers", "one sample", "dead"])
def test_hard_data_neither_fails_nor_makes_things_worse(trouble: str) -> None:
    data = Data(SHAPE, fit=1 if trouble == "one sample" else 6, held=2)
    for batch in data.batches:
        if trouble == "constant":
            batch[:] = 0.7
        if trouble == "outliers":
            batch.reshape(-1)[::97] *= 10
        if trouble == "dead":
            batch[:, 0] = 0
    found = refit(random_case(net("lstm")), data)
    assert found.error_chosen <= found.error_none
    assert recurrent_records(found)[0].method != "none"


def test_sequences_without_a_step_leave_nothing_to_fit() -> None:
    def build(b: Builder) -> str:
        x = b.linear(b.relu(b.linear(b.input("x", SHAPE), 12)), INPUTS)
        weights = [b.weight(1, HIDDEN, INPUTS), b.weight(1, HIDDEN, HIDDEN)]
        lengths = b.const(np.zeros(BATCH, np.int32))
        y = b.op("RNN", [x, *weights, "", lengths, b.weight(1, BATCH, HIDDEN)], outputs=2, hidden_size=HIDDEN)
        return b.linear(str(b.op("Add", [y[1], b.op("ReduceSum", [y[0], b.const(np.array([0]))], keepdims=0)])), 3)

    (record,) = recurrent_records(refit(random_case(build)))
    assert (record.method, record.notes) == ("skipped", ("no calibration sample reaches it",))


# -- refusals -----------------------------------------------------------------------------------------------------
def records_of(build: Callable[[Builder], str]) -> dict[str, tuple[str, ...]]:
    b = Builder(seed=5)
    b.output(build(b))
    dense, analysis = prepare(b.model())
    alive = analysis.alive({})
    found = refit(Case(dense, slice_channels(dense, analysis, alive), analysis, alive))
    return {record.layer: record.notes for record in found.records if record.method == "skipped"}


def test_a_reset_gate_that_is_no_sigmoid_is_left_and_the_record_says_so() -> None:
    def build(b: Builder) -> str:
        x = b.input("x", SHAPE)
        return b.linear(layer(b, x, "GRU", activations=["HardSigmoid", "Tanh"])[1], 3)

    (notes,) = records_of(build).values()
    assert notes == ("its reset gate is not a sigmoid",)


def test_a_shared_weight_is_left_and_the_record_says_so() -> None:
    def build(b: Builder) -> str:
        x = b.input("x", SHAPE)
        w, r = b.weight(1, HIDDEN, 4), b.weight(1, HIDDEN, HIDDEN)
        first, second = (b.op("RNN", [x, w, r], outputs=2, hidden_size=HIDDEN)[1] for _ in range(2))
        return b.linear(str(b.op("Add", [first, b.op("Neg", [second])])), 3)

    assert all("is shared" in note for (note,) in records_of(build).values())
    assert len(records_of(build)) == 2
