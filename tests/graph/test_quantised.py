"""Quantised graphs stay quantised, pure integer ones are cut bit by bit, and the proof sees through the rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from prunec.criteria.base import ScoreContext, consumed_rows
from prunec.diagnostics import GateError
from prunec.graph.cost import model_macs, parameter_count
from prunec.passes.mask_channels import mask_channels
from prunec.passes.slice_channels import slice_channels
from prunec.statistics.collect import collect
from prunec.verify.exactness import check_exactness
from prunec.verify.unrounded import without_rounding
from tests.graph.builder import Builder
from tests.graph.checks import prepare, random_alive, random_feeds, relative_error, run
from tests.graph.micros_quantised import QUANTISED
from tests.graph.test_micro import build


def integers(model: ir.Model) -> int:
    """Elements of 8-bit initializers."""
    kinds = (ir.DataType.INT8, ir.DataType.UINT8)
    return sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value and v.dtype in kinds)


@pytest.mark.parametrize("name", QUANTISED)
def test_canonical_form_keeps_the_integers(name: str) -> None:
    source = build(name)
    canonical, _ = prepare(source)
    assert integers(canonical) == integers(source) > 0
    assert [n.op_type for n in canonical.graph] == [n.op_type for n in source.graph]


@pytest.mark.parametrize("name", ["qlinear", "qlinear_depthwise", "qlinear_matmul"])
def test_integers_all_the_way_are_cut_bit_by_bit(name: str) -> None:
    canonical, analysis = prepare(build(name))
    rng = np.random.default_rng(5)
    alive = random_alive(analysis, 0.5, rng)
    feeds = random_feeds(canonical, rng)
    masked, cut = mask_channels(canonical, analysis, alive), slice_channels(canonical, analysis, alive)
    assert relative_error(run(masked, feeds), run(cut, feeds)) <= (0 if name == "qlinear" else 1e-6)


@pytest.mark.parametrize("name", [n for n in QUANTISED if QUANTISED[n].free])
def test_without_rounding_is_the_same_model_but_for_the_rounding(name: str) -> None:
    canonical, _ = prepare(build(name))
    feeds = random_feeds(canonical, np.random.default_rng(1))
    exact = without_rounding(canonical)
    assert [v.name for v in exact.graph.outputs] == [v.name for v in canonical.graph.outputs]
    rounded, real = (np.concatenate([y.ravel() for y in run(model, feeds)]) for model in (canonical, exact))
    assert np.corrcoef(rounded, real)[0, 1] > 0.95
    assert exact is canonical or not {n.op_type for n in exact.graph} & {"QuantizeLinear", "QLinearConv"}


def test_a_forgotten_scale_shows() -> None:
    """The check sees scales that were left where they were: a plan that shifts them by one is refused."""
    canonical, analysis = prepare(build("qdq_chain"))
    alive = random_alive(analysis, 0.5, np.random.default_rng(0))
    cut = slice_channels(canonical, analysis, alive)
    check_exactness(canonical, analysis, alive, cut_model=cut, seed=0)
    scale = next(n for n in cut.graph if n.op_type == "DequantizeLinear" and n.inputs[1].shape == [8]).inputs[1]
    scale.const_value = ir.tensor(np.roll(scale.const_value.numpy(), 1))
    with pytest.raises(GateError, match="PC501"):
        check_exactness(canonical, analysis, alive, cut_model=cut, seed=0)


def test_costs_count_integers() -> None:
    canonical, analysis = prepare(build("qlinear"))
    cut = slice_channels(canonical, analysis, random_alive(analysis, 0.5, np.random.default_rng(0)))
    assert parameter_count(canonical) > 3 * 16 * 9 and model_macs(canonical) > 0
    assert parameter_count(cut) < 0.7 * parameter_count(canonical)
    assert model_macs(cut) < 0.7 * model_macs(canonical)


def test_scores_and_statistics_see_real_numbers() -> None:
    """A consumer's weight is dequantised, and its data too."""
    canonical, analysis = prepare(build("qlinear"))
    context = ScoreContext(canonical, analysis)
    for consumer in analysis.consumers:
        if consumer.weight_index is not None:
            rows = consumed_rows(context, consumer)
            assert rows.dtype == np.float32 and 0 < np.abs(rows).max() < 2

    class Data:
        fingerprint = "test"

        def fit(self) -> list[dict[str, np.ndarray]]:
            return [{"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}]

        held_out = fit

    found = collect(canonical, analysis, Data(), frozenset({"moments"}))  # type: ignore[arg-type]
    assert found
    assert all(np.abs(layer.mean).max() < 10 for layer in found.values()), "still in quanta"


def test_runtime_quantiser_output(tmp_path: Path) -> None:
    """What ONNX Runtime's own quantiser writes: dynamic, QDQ and QOperator."""
    from onnxruntime import quantization as q

    b = Builder(seed=9)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16))
    x = b.op("Add", [x, b.relu(b.conv(x, 16))])
    b.output(b.gemm(b.op("Flatten", [b.op("GlobalAveragePool", [b.relu(b.conv(x, 12))])]), 5, trans_b=False))
    source = tmp_path / "float.onnx"
    ir.save(b.model(), source)

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.left = [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            return self.left.pop() if self.left else None

    written = {}
    for name, form in (("qdq", q.QuantFormat.QDQ), ("qoperator", q.QuantFormat.QOperator)):
        q.quantize_static(source, tmp_path / f"{name}.onnx", Reader(), quant_format=form, per_channel=True)
        written[name] = onnx.load(tmp_path / f"{name}.onnx")
    q.quantize_dynamic(source, tmp_path / "dynamic.onnx")
    written["dynamic"] = onnx.load(tmp_path / "dynamic.onnx")
    for name, proto in written.items():
        canonical, analysis = prepare(ir.from_proto(proto))
        assert [g.size for g in analysis.groups if g.pinned is None] == [16, 12], name
        alive = random_alive(analysis, 0.5, np.random.default_rng(0))
        record = check_exactness(canonical, analysis, alive, seed=0)
        assert record.passed and (record.float64_max_rel or 0) <= 1e-12, name
