"""Widths: steps, units of groups whose channels cover several positions, and the rungs they leave."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.criteria import create
from prunec.plan.budget import Budget
from prunec.plan.cells import split_cells
from prunec.plan.planner import Planner
from prunec.plan.rounding import blocked_nodes, levels, step_for, unit
from tests.criteria.small import attention, branches, context, free, grouped, prepare
from tests.graph.builder import Builder


def units(model: object, step: int = 8) -> dict[int, int]:
    canonical, analysis = prepare(model)  # type: ignore[arg-type]
    groups = {g.id: g for g in free(analysis)}
    blocked = blocked_nodes(canonical)
    cells = split_cells(analysis, list(groups.values()))
    return {cell.size: unit(cell, groups[cell.group], step, blocked) for cell in cells}


@pytest.mark.parametrize(
    ("size", "unit_", "least", "expected"),
    [
        (32, 8, 1, [32, 24, 16, 8]),
        (30, 8, 1, [30, 24, 16, 8]),
        (32, 8, 9, [32, 24, 16]),
        (7, 4, 1, [7, 4]),
        (3, 4, 1, [3]),
        (4, 1, 2, [4, 3, 2]),
        (1, 1, 1, [1]),
        (64, 8, 64, [64]),
    ],
)
def test_levels(size: int, unit_: int, least: int, expected: list[int]) -> None:
    assert levels(size, unit_, least) == expected


def test_a_grouped_convolution_counts_positions() -> None:
    # 64 channels in 8 groups: 8 classes that cover 8 positions each, so every number of classes is a multiple of 8
    assert units(grouped()) == {48: 8, 8: 1, 40: 8}


def test_heads_count_positions_and_feed_forward_channels_count_once() -> None:
    assert units(attention()) == {4: 1, 64: 8}


def test_wide_grouped_convolutions_keep_blocks_inside_each_group() -> None:
    b = Builder()
    x = b.conv(b.input("x", [1, 4, 4, 4]), 64, group=2)
    b.output(b.conv(b.relu(x), 8))
    assert units(b.model()) == {32: 8}


def test_the_input_of_a_wide_grouped_convolution_keeps_blocks_too() -> None:
    b = Builder()
    x = b.relu(b.conv(b.input("x", [1, 4, 4, 4]), 64, 1))
    b.output(b.conv(b.relu(b.conv(x, 128, group=2)), 8))
    assert units(b.model()) == {32: 8, 64: 8}


def test_parts_too_narrow_for_a_unit_lose_multiples_instead() -> None:
    assert levels(24, 8, 1, is_loss=True) == [24, 16, 8]
    assert levels(6, 4, 1, is_loss=True) == [6, 2]
    assert levels(3, 4, 1, is_loss=True) == [3]
    b = Builder()
    stem = b.relu(b.conv(b.input("x", [1, 3, 8, 8]), 36))
    wide, narrow = b.op("Split", [stem, b.const(np.array([30, 6], np.int64))], 2, axis=1)
    b.output(b.conv(b.op("Concat", [b.conv(wide, 24), wide], axis=1), 8), b.conv(b.op("Add", [wide, wide]), 4))
    b.output(b.conv(b.op("Concat", [narrow, wide], axis=1), 8), b.conv(narrow, 4))
    about = context(b.model())
    for share in (0.2, 0.5, 0.8):
        made = Planner(about.model, about.analysis, create("l1"), about).least_cut(Budget.of("channels", share))
        kept = next(g for g in made.groups if g.size == 36).keep()
        assert kept.sum() % 4 == 0 and kept.sum() < 36


def test_narrow_groups_take_half_the_step_and_slices_are_rounded_apart() -> None:
    assert units(branches()) == {40: 8, 24: 4, 32: 8}


def test_steps() -> None:
    assert (step_for("onnx", None), step_for("x86-avx512", None), step_for("onnx", 3)) == (8, 16, 3)
    assert units(branches(), step=1) == {40: 1, 24: 1, 32: 1}
