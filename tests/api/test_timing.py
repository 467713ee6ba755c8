"""Budgets of time: the loop of choosing and measuring, with a machine whose times are known; and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.api import planning, timed, timing
from prunec.api.compilation import compile
from prunec.api.gates import gate_slower, gate_time, refusals
from prunec.api.opening import open_model
from prunec.diagnostics import GateError, PrunecError
from prunec.graph.cost import model_macs
from prunec.measure.contender import DENSE, PRUNED
from prunec.measure.results import Machine, MeasurementProtocol, Measurements, Speedup, Times
from prunec.measure.shares import Candidate, Share
from prunec.plan.budget import Budget
from prunec.plan.plan import Plan
from prunec.verify.records import QualityRecord
from tests.graph.builder import Builder

DENSE_MS = 10.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hidden layers of 32, 48 and 64 channels."""
    b = Builder(0)
    x = b.input("x", [1, 3, 8, 8])
    for width in (32, 48, 64):
        x = b.relu(b.conv(x, width, 3))
    b.output(b.conv(x, 8, 3))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    ir.save(b.model(), path)
    return path


def macs(path: Path) -> int:
    return model_macs(open_model(path).canonical)


class Clock:
    """A machine on which half of the products take more than half of the time; interval: `noise` to both sides."""

    noise = 0.0

    def __init__(self, dense: Path, feeds: Mapping[str, np.ndarray], **about: Any) -> None:
        self._whole = macs(dense)

    def shares(
        self, candidates: Sequence[Candidate], *, how: Mapping[str, float], progress: Callable[[int, int], None] = print
    ) -> list[Share]:
        return list(self._shares(candidates))

    def _shares(self, candidates: Sequence[Candidate]) -> Iterator[Share]:
        for _, write in candidates:
            with write() as path:
                found = 0.1 + 0.9 * (macs(path) / self._whole) ** 0.8
                yield Share(found, (found * (1 - self.noise), found * (1 + self.noise)), DENSE_MS)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)


def plan(model: Path, **options: Any) -> planning.Planned:
    return planning.plan(model, samples=16, cache=False, **options)


@pytest.mark.parametrize("scope", ["loss", "layer", "global"])
@pytest.mark.parametrize("value", [1.3, 2.0])
def test_a_speedup_is_met_by_what_was_measured(model: Path, scope: str, value: float) -> None:
    found = plan(model, speedup=value, scope=scope).plan
    assert found.time is not None and found.time.share <= 1 / value
    assert found.time.share > 0.7 / value
    assert any(group.cut for group in found.groups)
    assert found.budget == Budget(kind="speedup", value=value)


def test_a_latency_is_a_share_of_the_dense_models(model: Path) -> None:
    by_ratio, by_ms = plan(model, speedup=2).plan, plan(model, latency_ms=5).plan
    assert by_ms.groups == by_ratio.groups and by_ms.time == by_ratio.time


def test_a_plan_of_time_is_read_back_as_it_was_written(model: Path, tmp_path: Path) -> None:
    found = plan(model, speedup=1.5, output=tmp_path / "plan.json").plan
    assert Plan.load(tmp_path / "plan.json") == found


def test_what_the_narrowest_model_cannot_do_is_refused_with_what_it_can(model: Path) -> None:
    with pytest.raises(PrunecError, match="PC207") as caught:
        plan(model, speedup=50)
    hint = caught.value.diagnostic.hint or ""
    nearest = float(hint.split()[1])
    assert plan(model, speedup=nearest).plan.time is not None


@pytest.mark.parametrize("options", [{"speedup": 2.0}, {"latency_ms": 5.0}, {"max_drop": 0.1}])
def test_a_model_with_nothing_to_cut_is_refused_before_it_is_timed(tmp_path: Path, options: dict[str, float]) -> None:
    b = Builder(0)
    b.output(b.conv(b.input("x", [1, 3, 8, 8]), 8, 3))
    ir.save(b.model(), tmp_path / "model.onnx")
    with pytest.raises(PrunecError, match=r"PC207.*nothing can be cut here, because 1 of 1 groups .* are pinned"):
        plan(tmp_path / "model.onnx", **options)


def test_choices_that_all_turn_out_slower_are_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times that it learns from are kinder than those of the careful measurements."""
    shares = Clock.shares

    def slower(self: Clock, candidates: Sequence[Candidate], *, how: Mapping[str, float], **more: Any) -> list[Share]:
        found = shares(self, candidates, how=how)
        rise = 0.3 if how is timed.SURE else 0.0
        return [Share(one.median + rise, one.ci95, one.dense_ms) for one in found]

    monkeypatch.setattr(Clock, "shares", slower)
    with pytest.raises(GateError, match=r"PC527.* choices takes .* of the dense model's time"):
        plan(model, speedup=4)


def test_a_latency_that_the_dense_model_has_is_refused(model: Path) -> None:
    with pytest.raises(PrunecError, match="PC208"):
        plan(model, latency_ms=11)


def test_noise_wider_than_the_gain_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "noise", 0.1)
    assert plan(model, speedup=2).plan.time is not None
    with pytest.raises(GateError, match="PC528"):
        plan(model, speedup=1.1)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"speedup": 1.0}, "PC208"),
        ({"latency_ms": 0.0}, "PC208"),
        ({"speedup": float("nan")}, "PC208"),
        ({"speedup": 2.0, "flops": 0.5}, "PC220"),
        ({"speedup": 2.0, "latency_ms": 5.0}, "PC220"),
        ({"speedup": 2.0, "pattern": "2:4"}, "PC230"),
        ({"speedup": 2.0, "target": "tensorrt-2:4"}, "PC230"),
        ({"latency_ms": 2.0, "structures": "depth"}, "PC230"),
    ],
)
def test_refused_before_any_work(model: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(PrunecError, match=code):
        plan(model, **options)


def test_a_time_that_nobody_may_measure_is_refused(model: Path) -> None:
    with pytest.raises(PrunecError, match="PC222"):
        compile(model, speedup=2, measure=False)


def measured(low: float, high: float) -> Measurements:
    median = (low + high) / 2
    return Measurements(
        machine=Machine(cpu="c", logical_cpus=1, os="o"),
        protocol=MeasurementProtocol(
            subject=PRUNED, threads=1, inputs={}, order="", warmup_s=0, processes=1, blocks=6, runs_per_block={},
            untimed_runs_per_block={}, statistic="", interval="", seed=0,
        ),
        contenders={DENSE: Times(p50_ms=10, p90_ms=11), PRUNED: Times(p50_ms=10 / median, p90_ms=11)},
        speedup={f"vs_{DENSE}": Speedup(median=median, ci95=(low, high))},
        distributions={},
    )  # fmt: skip


@pytest.mark.parametrize("budget", [Budget.of("speedup", 2), Budget.of("latency-ms", 5)])
def test_the_finished_model_is_refused_where_it_is_shown_to_miss(budget: Budget) -> None:
    assert gate_time(measured(1.9, 2.1), budget) is None
    missed = gate_time(measured(1.7, 1.9), budget)
    assert missed is not None and missed.diagnostic.code == "PC529" and missed.exit_code == 1
    near = {"speedup": "--speedup 1.70", "latency-ms": "--latency-ms 5.88"}[budget.kind]
    assert missed.diagnostic.hint is not None and missed.diagnostic.hint.endswith(f"this model meets {near}")
    slow = gate_time(measured(0.8, 0.9), budget)
    assert slow is not None and "meets" not in (slow.diagnostic.hint or "")
    assert gate_time(None, budget) is not None


def test_no_plan_for_speed_ends_slower_than_dense() -> None:
    """Of a budget of time the interval of the choice lies below the limit or is refused as noise (PC528)."""
    slow = gate_slower(measured(0.8, 0.95))
    assert slow is not None and slow.diagnostic.code == "PC535" and slow.exit_code == 1
    assert gate_slower(measured(0.9, 1.1)) is None and gate_slower(None) is None
    asked = Budget.of("max-drop", 0.1)
    quality = QualityRecord(metric="m", dense=1, pruned=1, drop=0, drop_upper=None, data="user", samples=9)
    said = refusals(quality, measured(0.8, 0.95), min_speedup=None, max_drop=0.1, budget=asked)
    assert [no.diagnostic.code for no in said] == ["PC535"]


@pytest.mark.parametrize("noise", [0.0, 0.035])
def test_what_is_planned_is_shown_to_be_faster(model: Path, monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """The interval of a gain as small as the noise allows still lies below the dense model's time."""
    monkeypatch.setattr(Clock, "noise", noise)
    found = plan(model, speedup=1.08).plan
    assert found.time is not None and found.time.share <= found.time.ci95[1] < 1
