"""Budgets of time and quality for zeros in generated kernels: a machine whose times are known, no code generated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.api import planning, watches, zero_timing
from prunec.api.sweeping import sweep
from prunec.backends.base import LayerTimes
from prunec.backends.cpu.target import Cpu
from prunec.diagnostics import GateError, PrunecError
from prunec.measure.shares import Candidate, Share
from prunec.passes.sparsify import LayerPattern
from prunec.plan.layers import DENSE
from tests.graph.builder import Builder

DENSE_MS = 10.0
LAYER_US = 2000.0
"""What a dense layer takes; what is not a layer takes as much as one of them."""


def network(path: Path) -> Path:
    """Stem, four layers with constant weights, head. Random weights, so that no layer can spare what another needs."""
    b = Builder(0)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 32, 3))
    for _ in range(4):
        x = b.relu(b.conv(x, 32, 3))
    b.output(b.conv(x, 8, 3))
    ir.save(b.model(), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("model") / "model.onnx")


def taken(level: float) -> float:
    """A layer with zeros: they pay from a quarter on."""
    return LAYER_US * (1.1 * (1 - level) + 0.1)


class Clock:
    """Whole models take what their layers take and one layer more, in 8 ms where the dense one takes 10."""

    slower, noise = 1.0, 0.0

    def __init__(self, dense: Path, feeds: Mapping[str, np.ndarray], **about: Any) -> None:
        assert about["kind"] == "cpu"

    def shares(self, candidates: Sequence[Candidate], *, how: Mapping[str, float], progress: Any = None) -> list[Share]:
        return list(self._shares(candidates))

    def _shares(self, candidates: Sequence[Candidate]) -> Iterator[Share]:
        for _, write in candidates:
            with write() as path:
                us = float(path.read_text()) + LAYER_US
            share = 0.8 * us / (5 * LAYER_US) * self.slower
            yield Share(share, (share * (1 - self.noise), share * (1 + self.noise)), DENSE_MS)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(self: Cpu, model: ir.Model, layers: Mapping[str, LayerPattern], *_: Any) -> dict[str, LayerTimes]:
        return {name: LayerTimes(LAYER_US, taken(own.level)) for name, own in layers.items()}

    def write_timed(self: Cpu, folder: Path, model: ir.Model, layers: Mapping[str, LayerPattern], shapes: Any) -> Path:
        path = folder / "us"
        path.write_text(
            str(sum(min(taken(own.level), LAYER_US) for own in layers.values()) + (4 - len(layers)) * LAYER_US)
        )
        return path

    monkeypatch.setattr(watches, "Stopwatch", Clock)
    monkeypatch.setattr(Cpu, "times", times)
    monkeypatch.setattr(Cpu, "write_timed", write_timed)


@contextmanager
def clock(**values: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(Clock, name, value)
        yield


def plan(model: Path, **options: Any) -> planning.Planned:
    return planning.plan(model, target="cpu", samples=40, cache=False, **options)


@pytest.mark.parametrize("value", [1.6, 2.5])
def test_a_speedup_is_met_with_levels_of_their_own(model: Path, value: float) -> None:
    found = plan(model, speedup=value, allocation="loss").plan
    assert found.time is not None and 0.85 / value < found.time.share <= 1 / value
    assert found.pattern == "block:16x1" and found.allocation == "loss" and not found.groups
    sparse = {layer.node: layer.level for layer in found.layers if layer.pattern != DENSE}
    assert sparse and set(sparse.values()) <= set(zero_timing.LEVELS)
    sizes = len([layer for layer in found.layers if layer.node in sparse or "others lose less" in layer.why])
    assert sizes == 4 and found.level == pytest.approx(sum(sparse.values()) / 4, abs=1e-6)
    assert all("µs" in layer.why for layer in found.layers if layer.node in sparse)


@pytest.mark.parametrize("allocation", ["uniform", "erk", "lamp", "global"])
def test_other_allocations_spread_the_zeros_that_the_time_takes(model: Path, allocation: str) -> None:
    found = plan(model, speedup=2, allocation=allocation).plan
    assert found.time is not None and 0.85 / 2 < found.time.share <= 1 / 2 and found.allocation == allocation
    levels = {layer.level for layer in found.layers if layer.pattern != DENSE}
    assert levels <= set(zero_timing.FINE) and (len(levels) == 1) == (allocation in ("uniform", "erk"))


def test_what_loses_much_keeps_more(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = zero_timing.loss_curves

    def costly(layers: Any, *arguments: Any) -> Any:
        found = real(layers, *arguments)
        first = next(iter(layers))
        return type(found)({**found.curves, first: found.curves[first] * 1000}, found.losses, found.sizes, found.inputs)

    monkeypatch.setattr(zero_timing, "loss_curves", costly)
    found = plan(model, speedup=2, allocation="loss").plan
    levels = [layer.level for layer in found.layers if "stem" not in layer.why and "head" not in layer.why]
    assert levels[0] < min(levels[1:])


def test_zeros_that_do_not_pay_are_not_made(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def times(self: Cpu, model: ir.Model, layers: Mapping[str, LayerPattern], *_: Any) -> dict[str, LayerTimes]:
        slow = next(iter(layers))
        return {n: LayerTimes(LAYER_US, 3e3 if n == slow else taken(own.level)) for n, own in layers.items()}

    monkeypatch.setattr(Cpu, "times", times)
    found = plan(model, speedup=1.6, allocation="loss").plan
    whys = [layer.why for layer in found.layers if layer.pattern == DENSE]
    assert any("others lose less" in why for why in whys)


def test_a_drop_is_what_the_solved_model_loses(model: Path) -> None:
    tight, loose = (plan(model, max_drop=drop, solver="fast").plan for drop in (0.0005, 0.2))
    assert tight.time is not None and loose.time is not None and tight.drop is not None
    assert tight.drop.drop <= 0.0005 and loose.time.share < tight.time.share < 1


def test_points_of_a_curve(model: Path, tmp_path: Path) -> None:
    curve, _ = sweep(model, 3, output=tmp_path / "curve", target="cpu", solver="fast", samples=40, cache=False)
    shares = [curve.plans[n].time.share for n in (1, 2, 3)]  # type: ignore[union-attr]
    assert shares == sorted(shares, reverse=True) and curve.plans[3].level == zero_timing.LEVELS[-1]


def test_what_cannot_be_had_is_refused(model: Path) -> None:
    with pytest.raises(PrunecError, match=r"PC207.*with 88% of the weights of every layer"):
        plan(model, speedup=30)
    with clock(noise=0.9), pytest.raises(GateError, match="PC528"):
        plan(model, speedup=2)
    with pytest.raises(PrunecError, match="PC220"):
        plan(model, speedup=2, sparsity=0.5)
    with pytest.raises(PrunecError, match=r"PC230.*zeros, not of widths"):
        plan(model, speedup=2, pattern="channel")
    with pytest.raises(PrunecError, match="PC230"):
        plan(model, speedup=2, structures="depth")
