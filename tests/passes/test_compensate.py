"""Compensation as a whole: what it restores, what it never does, what it refuses, what it leaves behind."""

from __future__ import annotations

import dataclasses
import tempfile
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.diagnostics import PrunecError
from prunec.passes.compensate import Compensated, Options, compensate, driver, judge
from prunec.passes.compensate.judge import Judge
from prunec.passes.compensate.runner import SequentialRunner
from prunec.passes.slice_channels import slice_channels
from tests.graph.builder import Builder
from tests.graph.checks import prepare, run
from tests.passes.compensate_samples import NETS, Case, Data, input_shape, random_case, redundant_case


def refit(case: Case, data: Data | None = None, **options: object) -> Compensated:
    data = data or Data(input_shape(case.dense))
    chosen = dataclasses.replace(Options(), **options)  # type: ignore[arg-type]
    return compensate(case.dense, case.cut, case.analysis, case.alive, data, chosen)


def bytes_of(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", NETS)
def test_redundant_channels_cost_nothing_after_compensation(name: str) -> None:
    case = redundant_case(name)
    found = refit(case)
    assert found.error_none > 1e-4, "the cut does no harm: nothing is tested"
    assert found.error_chosen < 1e-9
    fresh = Data(input_shape(case.dense), seed=99, fit=0, held=1).batches[0]
    (wanted,), (refitted,) = run(case.dense, {"x": fresh}), run(found.model, {"x": fresh})
    assert np.abs(wanted - refitted).max() < 2e-5 * np.abs(wanted).max()


def test_a_linear_combination_of_kept_channels_comes_back() -> None:
    case = redundant_case("conv_relu_conv")
    dense = case.dense.clone()
    relu = next(node for node in dense.graph if node.op_type == "Relu")
    relu.outputs[0].replace_all_uses_with(relu.inputs[0])  # type: ignore[arg-type]
    dense.graph.remove(relu)
    weight, bias = (value for value in next(iter(dense.graph)).inputs[1:3])
    mix = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    for value in (weight, bias):
        assert value is not None and value.const_value is not None
        array = value.const_value.numpy().copy()
        array[6:] = np.tensordot(mix, array[:6], 1)
        value.const_value = ir.tensor(array, name=value.name)

    model, analysis = prepare(dense)

    free = next(group for group in analysis.groups if group.pinned is None)
    alive = analysis.alive({free.id: np.arange(8) < 6})
    found = refit(Case(model, slice_channels(model, analysis, alive), analysis, alive))
    assert found.error_none > 1e-3 and found.error_chosen < 1e-9


@pytest.mark.parametrize("method", ["bias", "lsq", "auto"])
@pytest.mark.parametrize("name", NETS)
def test_no_step_makes_the_held_out_error_worse(name: str, method: str) -> None:
    case = random_case(name)
    found = refit(case, method=method)
    assert not found.warnings
    for record in found.records:
        assert record.error_chosen <= record.error_none
        assert (record.method == "none") == (record.error_chosen == record.error_none)
    assert found.error_chosen <= found.error_none
    if method != "bias":
        assert found.error_chosen < 0.8 * found.error_none


def test_least_squares_beat_the_bias_and_the_bias_beats_nothing() -> None:
    errors = {m: refit(random_case("conv_relu_conv"), method=m).error_chosen for m in ("none", "bias", "lsq")}
    assert errors["lsq"] < 0.8 * errors["bias"] < 0.7 * errors["none"]


def test_the_residual_target_corrects_the_drift_of_the_sum() -> None:
    case = random_case("residual", seed=2)
    data = Data(input_shape(case.dense), fit=60, held=15)
    plain, summed = refit(case, data, residual=False), refit(case, data)
    assert any(record.residual for record in summed.records)
    assert not any(record.residual for record in plain.records)
    assert summed.error_chosen < 0.98 * plain.error_chosen


def test_candidates_meet_some_of_the_held_out_data_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of them is as good as if all had been run on all of it."""
    case = random_case("residual")
    data = Data(input_shape(case.dense), held=40)
    runs = []
    original = Judge.outputs
    monkeypatch.setattr(Judge, "outputs", lambda *args: (runs.append(1), original(*args))[1])
    some = refit(case, data)
    count = len(runs)
    monkeypatch.setattr(judge, "SCREENED", 1000)
    every = refit(case, data)
    assert count < 0.6 * (len(runs) - count)
    assert some.error_chosen < 1.02 * every.error_chosen


def test_neither_model_is_changed() -> None:
    case = random_case("residual")
    before = bytes_of(case.dense), bytes_of(case.cut)
    found = refit(case)
    assert (bytes_of(case.dense), bytes_of(case.cut)) == before
    assert bytes_of(found.model) != before[1]


def test_nothing_cut_is_nothing_to_do() -> None:
    case = random_case("residual", share=0.0)
    found = refit(case)
    assert {record.method for record in found.records} == {"none"}
    assert {record.notes for record in found.records} == {("its input has not changed",)}
    assert bytes_of(found.model) == bytes_of(case.cut)


def test_the_same_inputs_give_the_same_bytes_in_memory_and_on_disk(tmp_path: Path) -> None:
    case = random_case("pre_activation")
    first, second = refit(case), refit(case, ram_bytes=0, folder=tmp_path)
    assert bytes_of(first.model) == bytes_of(second.model)
    assert first.records == second.records
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case("residual")
    opened: list[FileIO] = []
    original = tempfile.TemporaryFile

    def noted(**options: Any) -> Any:
        file = original(**options)
        if options["dir"] == tmp_path:
            opened.append(file)
        return file

    def interrupt(done: int, total: int, layer: str) -> None:
        if done == 2:
            assert opened and not opened[0].closed
            raise KeyboardInterrupt

    monkeypatch.setattr("prunec.array_store.tempfile.TemporaryFile", noted)
    with pytest.raises(KeyboardInterrupt):
        compensate(
            case.dense,
            case.cut,
            case.analysis,
            case.alive,
            Data([2, 3, 10, 10]),
            Options(ram_bytes=0, folder=tmp_path),
            interrupt,
        )
    assert all(file.closed for file in opened) and not list(tmp_path.iterdir())


def test_arrays_are_gone_as_soon_as_nobody_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain keeps the inputs and outputs of one layer, however long it is."""
    case = random_case("residual")
    data = Data([2, 3, 10, 10], fit=4, held=1)
    names: list[int] = []
    original = SequentialRunner.advance

    def counted(self: SequentialRunner, stop: int) -> None:
        original(self, stop)
        names.append(len(list(self.store)) // 5)

    monkeypatch.setattr(SequentialRunner, "advance", counted)
    compensate(case.dense, case.cut, case.analysis, case.alive, data, Options(ram_bytes=0))
    assert len(names) > 3 and 2 <= max(names) <= 6


def test_activations_that_are_not_finite_are_an_error() -> None:
    data = Data([2, 3, 10, 10])
    data.batches[1][0, 0, 3, 3] = np.nan
    with pytest.raises(PrunecError, match="PC330"):
        refit(random_case("conv_relu_conv"), data)


@pytest.mark.parametrize(("fit", "held"), [(0, 3), (3, 0)])
def test_missing_samples_are_an_error(fit: int, held: int) -> None:
    with pytest.raises(PrunecError, match="PC331"):
        refit(random_case("conv_relu_conv"), Data([2, 3, 10, 10], fit=fit, held=held))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("trouble", ["constant", "outliers", "one sample", "dead"])
def test_hard_data_neither_fails_nor_makes_things_worse(name: str, trouble: str) -> None:
    case = random_case(name)
    data = Data(input_shape(case.dense), fit=1 if trouble == "one sample" else 6, held=2)
    if trouble == "constant":
        data.batches = [np.full_like(batch, 0.7) for batch in data.batches]
    if trouble == "outliers":
        for batch in data.batches:
            batch.reshape(-1)[::97] *= 10
    if trouble == "dead":
        for batch in data.batches:
            batch[:, 0] = 0
    found = refit(case, data)
    assert found.error_chosen <= found.error_none
    assert any(record.method not in ("none", "skipped") for record in found.records)


def test_half_precision_stays_half_precision() -> None:
    from onnx import TensorProto, helper, numpy_helper

    case = random_case("conv_relu_conv")
    proto = ir.to_proto(case.dense)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for info in (*proto.graph.input, *proto.graph.output):
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        info.CopyFrom(helper.make_tensor_value_info(info.name, TensorProto.FLOAT16, shape))
    del proto.graph.value_info[:]

    dense, analysis = prepare(ir.from_proto(proto))
    half = Case(dense, slice_channels(dense, analysis, case.alive), analysis, case.alive)
    found = refit(half, Data([2, 3, 10, 10], dtype="f2"))
    assert found.error_chosen < 0.8 * found.error_none
    kinds = {value.dtype for value in found.model.graph.initializers.values()}
    assert kinds == {ir.DataType.FLOAT16}


def test_a_shared_weight_is_left_and_the_record_says_so() -> None:

    b = Builder(seed=5)
    x = b.input("x", [2, 3, 8, 8])
    first = b.relu(b.conv(x, 6))
    weight = b.weight(6, 6, 3, 3)
    y = b.op("Conv", [first, weight], pads=[1] * 4)
    b.output(b.op("Conv", [b.relu(y), weight], pads=[1] * 4))
    dense, analysis = prepare(b.model())
    alive = analysis.alive({})
    cut = slice_channels(dense, analysis, alive)
    found = refit(Case(dense, cut, analysis, alive))
    skipped = [record for record in found.records if record.method == "skipped"]
    assert len(skipped) == 2 and all("is shared" in record.notes[0] for record in skipped)


def test_a_result_that_helps_no_output_is_dropped_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case("conv_relu_conv")
    monkeypatch.setattr(driver, "_output_errors", lambda *_: [0.1, 0.2])
    found = refit(case)
    assert bytes_of(found.model) == bytes_of(case.cut)
    assert [warning.code for warning in found.warnings] == ["PC333"]
    assert found.error_chosen == found.error_none == 0.1
    assert not refit(case, gate=False).warnings


def test_large_kernels_share_one_channel_map_and_are_fitted_in_row_space() -> None:
    exact = refit(redundant_case("conv_relu_conv"), patch_limit=8)
    assert exact.error_chosen < 1e-6
    found = refit(random_case("conv_relu_conv"), patch_limit=8)
    assert found.error_chosen < 0.8 * found.error_none
    assert any("unknowns from" in note for record in found.records for note in record.notes)


def test_shapes_that_differ_between_the_models_are_left_alone() -> None:
    """Rows are selected by a value that the cut changes, as a detector selects its boxes."""
    b = Builder(seed=5)
    x = b.input("x", [2, 3, 8, 8])
    y = b.op("Transpose", [b.conv(b.relu(b.conv(x, 8)), 5)], perm=[0, 2, 3, 1])
    rows = b.reshape(y, [-1, 5])
    score = b.reshape(str(b.op("ReduceMean", [rows, b.const(np.array([1]))], keepdims=0)), [-1])
    chosen = str(b.op("Compress", [rows, b.op("Greater", [score, b.const(np.float32(0.1))])], axis=0))
    b.shapes[chosen] = [None, 5]  # type: ignore[list-item]
    last = str(b.op("MatMul", [chosen, b.weight(5, 4)]))
    b.shapes[last] = [None, 4]  # type: ignore[list-item]
    b.output(last)
    dense, analysis = prepare(b.model())
    free = next(group for group in analysis.groups if group.pinned is None)
    alive = analysis.alive({free.id: np.arange(free.size) < 4})
    found = refit(Case(dense, slice_channels(dense, analysis, alive), analysis, alive))
    by_method = {record.method: record for record in found.records}
    assert "depends on the data" in by_method["skipped"].notes[0]
    assert "lsq" in by_method
    assert [warning.code for warning in found.warnings] == ["PC333"]


def test_stacks_of_matrices_are_refitted() -> None:
    def experts(b: Builder) -> str:
        x = b.linear(b.input("x", [2, 3, 10, 8]), 16)
        y = b.relu(str(b.op("MatMul", [b.relu(x), b.const(b.rng.standard_normal((3, 16, 24)).astype("f4") / 4)])))
        return str(b.op("MatMul", [y, b.const(b.rng.standard_normal((3, 24, 5)).astype("f4") / 4)]))

    case = random_case(experts)
    found = refit(case)
    records = [record for record in found.records if record.method != "skipped"]
    assert len(records) == 3 and found.error_chosen < 0.9 * found.error_none
