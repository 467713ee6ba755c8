"""Data types and zeros for a time: a machine whose times are known in both types, and what conversions take on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

import prunec
from prunec.api import dropping, planning, precision_timing, watches
from prunec.api.choices import Judge
from prunec.api.opening import open_model
from prunec.api.options import PlanOptions
from prunec.api.results import PlanExplanation
from prunec.api.sweeping import sweep
from prunec.backends.base import LayerTimes
from prunec.backends.cpu.int8_target import Int8Cpu
from prunec.backends.cpu.target import Cpu
from prunec.diagnostics import PrunecError
from prunec.passes.quantise import LayerLosses
from prunec.passes.quantise.borders import borders, crossed
from prunec.passes.quantise.placement import quantisable
from prunec.passes.quantise.strip import is_qdq
from prunec.passes.sparsify import LayerPattern
from prunec.plan.layers import DENSE
from prunec.plan.plan import Plan
from tests.api.test_zero_timing import LAYER_US, Clock, network
from tests.graph.builder import Builder

IN_8_BITS = 0.5
"""Time of a layer in 8 bits over that in float32."""
ELSE_US = 500.0


class Machine:
    """`slow`: takes three times as long in 8 bits; `border_us`: for all values between two layers."""

    slow = ""
    border_us = 0.0


def layer_us(name: str, level: float, in_8_bits: bool) -> float:
    own = (1.5 if name == Machine.slow else IN_8_BITS) if in_8_bits else 1.0
    return LAYER_US * own * min(1.0, 1.1 * (1 - level) + 0.1)


def converted_us(model: ir.Model, in_8_bits: set[str]) -> float:
    found = borders(model)
    return Machine.border_us * crossed(found, in_8_bits) / max(border.elements for border in found)


def in_8_bits_of(backend: Cpu, model: ir.Model) -> set[str]:
    assert isinstance(backend, Int8Cpu)
    return {layer.name for layer in quantisable(model)} - backend.in_float


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(self: Cpu, model: ir.Model, layers: Mapping[str, LayerPattern], *_: Any) -> dict[str, LayerTimes]:
        able = in_8_bits_of(self, model)
        return {n: LayerTimes(*(layer_us(n, level, n in able) for level in (0.0, own.level)))
                for n, own in layers.items()}  # fmt: skip

    def between_us(self: Int8Cpu, model: ir.Model, *_: Any) -> float:
        return ELSE_US + converted_us(model, in_8_bits_of(self, model))

    def write_timed(self: Cpu, folder: Path, model: ir.Model, layers: Mapping[str, LayerPattern], shapes: Any) -> Path:
        able = in_8_bits_of(self, model)
        us = sum(
            layer_us(layer.name, layers[layer.name].level if layer.name in layers else 0.0, layer.name in able)
            for layer in quantisable(model)
        )
        (folder / "us").write_text(str(us + converted_us(model, able)))
        return folder / "us"

    monkeypatch.setattr(watches, "Stopwatch", Clock)
    monkeypatch.setattr(Cpu, "times", times)
    monkeypatch.setattr(Int8Cpu, "between_us", between_us)
    monkeypatch.setattr(Cpu, "write_timed", write_timed)
    monkeypatch.setattr(Machine, "slow", "")
    monkeypatch.setattr(Machine, "border_us", 0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def sensitive(model: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A layer in the middle that 8 bits cost everything."""
    real, name = precision_timing.losses_in_8_bits, names(model)[2]

    def costly(*arguments: Any) -> LayerLosses:
        found = real(*arguments)
        return LayerLosses({**found.alone, name: 10.0}, found.hurt, found.found, found.scales, found.bits)

    monkeypatch.setattr(precision_timing, "losses_in_8_bits", costly)
    return name


def names(model: Path) -> list[str]:
    """Stem, four layers alike, head."""
    return [layer.name for layer in quantisable(open_model(model).canonical)]


def plan(model: Path, precision: str, **options: Any) -> Plan:
    return planning.plan(model, target="cpu", precision=precision, samples=40, cache=False, **options).plan


def types(found: Plan) -> dict[str, str | None]:
    return {layer.node: layer.precision for layer in found.layers}


def zeros(found: Plan) -> dict[str, float]:
    return {layer.node: layer.level for layer in found.layers if layer.pattern != DENSE}


def test_zeros_are_chosen_by_their_times_in_8_bits(model: Path) -> None:
    found = plan(model, "int8", speedup=2)
    assert found.time is not None and 0.85 / 2 < found.time.share <= 1 / 2
    assert found.time.predicted == pytest.approx(found.time.share, abs=1e-3)
    assert found.precision == "int8" and set(types(found).values()) == {"int8"} and found.pattern == "block:4x4"
    assert zeros(found) and set(zeros(found)) <= set(names(model)[1:5])


def test_what_8_bits_meet_alone_leaves_every_layer_dense(model: Path) -> None:
    found = plan(model, "int8", speedup=1.3)
    assert not zeros(found) and set(types(found).values()) == {"int8"}


def test_layers_that_8_bits_hurt_are_timed_in_float(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, hurt = precision_timing.losses_in_8_bits, names(model)[2]

    def found(*arguments: Any) -> LayerLosses:
        own = real(*arguments)
        return LayerLosses(own.alone, {hurt: "it errs"}, own.found, own.scales, own.bits)

    monkeypatch.setattr(precision_timing, "losses_in_8_bits", found)
    made = plan(model, "int8", speedup=2)
    assert [name for name, kind in types(made).items() if kind == "float32"] == [hurt]
    assert made.time is not None and made.time.predicted == pytest.approx(made.time.share, abs=1e-3)
    (why,) = (layer.why for layer in made.layers if layer.node == hurt)
    assert "float32: it errs" in why


def test_a_layer_that_8_bits_cost_much_stays_in_float(model: Path, sensitive: str) -> None:
    found = plan(model, "mixed", speedup=1.5)
    assert types(found)[sensitive] == "float32" and "int8" in types(found).values()
    assert found.precision == "mixed" and found.time is not None and found.time.share <= 1 / 1.5


def test_a_mild_budget_is_met_by_few_layers_in_8_bits(model: Path) -> None:
    found = plan(model, "mixed", speedup=1.25)
    kinds = list(types(found).values())
    assert {"int8", "float32"} == set(kinds) and found.time is not None and found.time.share <= 0.8


def test_conversions_are_paid_for(model: Path, sensitive: str) -> None:
    """A layer in float between two in 8 bits costs two conversions, and the prediction has them in it."""
    Machine.border_us = LAYER_US / 8
    found = plan(model, "mixed", speedup=1.5)
    assert found.time is not None and found.time.predicted == pytest.approx(found.time.share, abs=2e-3)
    assert types(found)[sensitive] == "float32"


def test_dear_conversions_keep_neighbours_alike(model: Path) -> None:
    """A layer that 8 bits make slower stays in float32, unless the two borders around it cost more than that."""
    Machine.slow = names(model)[2]
    cheap = plan(model, "mixed", speedup=1.8)
    assert types(cheap)[Machine.slow] == "float32"
    Machine.border_us = LAYER_US
    dear = plan(model, "mixed", speedup=1.4)
    kinds = [types(dear)[name] for name in names(model)[1:4]]
    assert len(set(kinds)) == 1
    assert dear.time is not None and dear.time.predicted == pytest.approx(dear.time.share, abs=2e-3)


def test_what_is_judged_is_in_8_bits_as_planned(model: Path, sensitive: str) -> None:
    found = plan(model, "mixed", speedup=1.5)
    opened, options = open_model(model), PlanOptions(target="cpu", precision="mixed", samples=40)
    made = Judge(opened, planning.open_data(opened, options), options, None).model(found)
    assert is_qdq(made)
    weights = {name.removesuffix(".weight.int8") for name in made.graph.initializers if name.endswith(".weight.int8")}
    assert weights == {name for name, kind in types(found).items() if kind == "int8"}


def test_a_drop_is_that_of_the_model_in_8_bits(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropping, "TRIALS", 1)
    found = plan(model, "int8", max_drop=0.2, solver="fast")
    opened, options = open_model(model), PlanOptions(target="cpu", precision="int8", samples=40)
    quality = Judge(opened, planning.open_data(opened, options), options, None).quality(found)
    assert found.drop is not None and found.time is not None and found.time.share < 1
    assert quality is not None and found.drop.drop == pytest.approx(quality.drop, abs=1e-6)


def test_points_of_a_curve(model: Path, tmp_path: Path) -> None:
    curve, _ = sweep(model, 2, output=tmp_path, target="cpu", precision="int8", solver="fast", samples=40, cache=False)
    assert all(point.precision == "int8" for point in curve.plans.values())
    with pytest.raises(PrunecError, match="PC232"):
        sweep(model, 2, output=tmp_path, target="cpu", solver="fast", samples=40, cache=False)


def test_explain_has_the_data_types(model: Path, sensitive: str, tmp_path: Path) -> None:
    plan(model, "mixed", speedup=1.5, output=tmp_path / "plan.json")
    found = prunec.explain(tmp_path / "plan.json")
    assert isinstance(found, PlanExplanation)
    by_name = {one.name: one for one in found.decisions}
    assert all(one.precision is not None and one.quantised is not None for one in found.decisions)
    own = by_name[sensitive].quantised
    assert by_name[sensitive].precision == "float32" and own is not None and own.loss == 10.0
    whole = 0.8 / (5 * LAYER_US) * LAYER_US
    assert own.saved == pytest.approx(whole * (1 - IN_8_BITS), rel=0.02)


@pytest.mark.parametrize("precision", ["int8", "mixed"])
def test_a_layer_without_an_8_bit_form_gets_zeros_in_float(precision: str, tmp_path: Path) -> None:
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16, 3))
    x = b.relu(b.op("ConvTranspose", [x, b.weight(16, 16, 3, 3)]))
    b.output(b.conv(b.relu(b.conv(x, 16, 3)), 8, 3))
    ir.save(b.model(), tmp_path / "model.onnx")
    plan(tmp_path / "model.onnx", precision, speedup=1.6, output=tmp_path / "plan.json")
    found = prunec.explain(tmp_path / "plan.json")
    assert isinstance(found, PlanExplanation)
    by_kind = {one.precision: one for one in found.decisions if one.quantised is None}
    assert set(by_kind) == {"float32"} and by_kind["float32"].loss is not None
    assert sum(one.quantised is not None for one in found.decisions) == 3


def test_plans_keep_what_they_were_made_for(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan(model, "int8", speedup=2, output=path)
    compiled: dict[str, Any] = {"target": "cpu", "plan": path, "dry_run": True, "samples": 40, "cache": False}
    assert prunec.compile(model, precision="int8", **compiled).plan.precision == "int8"
    for other in (None, "mixed"):
        with pytest.raises(PrunecError, match="PC221"):
            prunec.compile(model, precision=other, **compiled)


def test_an_edited_plan_may_move_a_layer_to_float_and_not_beyond(model: Path) -> None:
    found = plan(model, "int8", speedup=2)
    opened, options = open_model(model), PlanOptions(target="cpu", precision="int8", samples=40)
    judge = Judge(opened, planning.open_data(opened, options), options, None)
    first, *rest = found.layers
    moved = found.model_copy(update={"layers": (first.model_copy(update={"precision": "float32"}), *rest)})
    assert f"{first.node}.weight.int8" not in judge.model(moved).graph.initializers
    lost = found.model_copy(update={"layers": (*found.layers, first.model_copy(update={"node": "nowhere"}))})
    with pytest.raises(PrunecError, match=r"PC204.*no form in 8 bits"):
        judge.model(lost)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"precision": "mixed", "sparsity": 0.5}, "PC487"),
        ({"precision": "mixed", "speedup": 2, "allocation": "uniform"}, "PC208"),
        ({"precision": "int8", "speedup": 2, "target": "onnx"}, "PC440"),
        ({"precision": "fp16", "speedup": 2}, "PC440"),
        ({"precision": "int8", "speedup": 2, "pattern": "block:16x1"}, "PC403"),
        ({"precision": "int8", "speedup": 30}, "PC207"),
    ],
)
def test_what_cannot_be_had_is_refused(model: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(PrunecError, match=code):
        planning.plan(model, **{"target": "cpu", "samples": 40, "cache": False, **options})
