"""Whole blocks under a budget of time; times are known as in test_timing, and losses are those of a real network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import prunec
from prunec.api import planning, timing
from prunec.api.compilation import compile
from prunec.api.depth_timing import carried
from prunec.api.opening import open_model
from prunec.api.results import PlanExplanation
from prunec.diagnostics import PrunecError
from prunec.graph import analyse
from prunec.graph.branches import find_blocks
from prunec.passes.remove_blocks import remove_blocks
from tests.api.test_timing import Clock
from tests.graph.builder import Builder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stem and four residual blocks; the second one adds next to nothing."""
    b = Builder(3)
    x = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 16, 3))
    for number in range(4):
        y = b.conv(b.relu(b.conv(x, 32, 3)), 16, 3)
        x = b.op("Add", [x, b.op("Mul", [y, b.const(np.float32(1e-3 if number == 1 else 0.3))])])
    b.output(b.conv(b.relu(x), 8, 3))
    path = tmp_path_factory.mktemp("depth") / "model.onnx"
    ir.save(b.model(), path)
    return path


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "Stopwatch", Clock)


def plan(model: Path, **options: Any) -> planning.Planned:
    return planning.plan(model, samples=16, cache=False, structures="depth,channels", **options)


def test_what_adds_nothing_goes_first(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(model, speedup=1.25, output=tmp_path / "plan.json").plan
    assert found.time is not None and 0.7 / 1.25 < found.time.share <= 1 / 1.25
    second = [block.name for block in find_blocks(open_model(model).canonical)][1]
    assert second in [block.name for block in found.depth] and found.structures == ("depth", "channels")
    assert not found.contest
    own = {choice.name: choice for choice in found.choices}[second]
    assert own.kept == 0 and own.saved > 0.05 and own.milder is not None and own.milder.time > 0
    explained = prunec.explain(tmp_path / "plan.json")
    assert isinstance(explained, PlanExplanation)
    blocks = {one.name: one for one in explained.decisions if one.what == "block"}
    assert len(blocks) == 4 and blocks[second].kept == 0 and blocks[second].why == "the outputs can spare it"
    groups = [one for one in explained.decisions if one.what == "channels"]
    widths = {choice.name: choice.kept for choice in found.choices if choice.name not in blocks}
    assert {one.name: one.kept for one in groups if one.loss is not None} == widths
    monkeypatch.setattr("prunec.api.saving._measured", lambda *_: None)
    done = compile(model, plan=tmp_path / "plan.json", output=tmp_path / "out", samples=16, cache=False)
    assert done.verification is not None and done.verification.exactness.passed
    assert done.plan.realised == found.realised and done.plan.depth == found.depth


def test_where_no_block_can_be_spared_the_plan_is_one_of_channels(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.statistics.block_errors.BlockErrors.error", lambda *_: 1e3)
    found = plan(model, speedup=1.3).plan
    assert found.time is not None and found.time.share <= 1 / 1.3
    assert found.structures == ("channels",) and not found.depth and any(group.cut for group in found.groups)


def test_cut_channels_are_found_again_without_a_block(model: Path) -> None:
    opened = open_model(model)
    before = opened.analysis
    alive = np.ones(before.channel_count, bool)
    inner = [group for group in before.groups if group.pinned is None and group.size == 32]
    alive[inner[0].channels[:5]] = alive[inner[2].channels[7:]] = False
    blocks = find_blocks(opened.canonical)
    reduced = remove_blocks(opened.canonical, [blocks[1]])
    after = analyse(reduced)
    found = carried(before, alive, after)
    left = [group for group in after.groups if group.pinned is None and group.size == 32]
    kept = [found[group.channels].tolist() for group in left]
    wanted = [alive[group.channels].tolist() for group in (inner[0], inner[2], inner[3])]
    assert kept == wanted and found.sum() == after.channel_count - 5 - 25


def test_what_is_not_timed_is_refused(model: Path) -> None:
    with pytest.raises(PrunecError, match=r"PC230.*does not say what a block is worth"):
        plan(model, speedup=1.2, scope="layer")
    for structures in ("depth", "channels,residual", "depth,channels,head-width"):
        with pytest.raises(PrunecError, match=r"PC230.*whole blocks beside them"):
            planning.plan(model, speedup=1.2, structures=structures, samples=16, cache=False)
