from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prunec.diagnostics import PrunecError
from prunec.patterns import Layout, Pattern, masked, parse
from prunec.patterns.select import kept_count, top_k, top_k_rows

NAMES = ("2:4", "1:4", "4:8", "3:16", "block:4x1", "block:2x4", "block:1x4", "vnm:4:2:8", "kernel", "unstructured")


def level_of(pattern: Pattern) -> float:
    return pattern.level(None if pattern.fixed_level is not None else 0.6)


@st.composite
def saliencies(draw: st.DrawFn) -> tuple[np.ndarray, Layout]:
    """Few distinct values, so that ties are the rule; sizes that every pattern of NAMES fits."""
    rows, positions, channels = 4 * draw(st.integers(1, 3)), draw(st.integers(1, 3)), 16 * draw(st.integers(1, 2))
    values = arrays.arrays(np.float64, (rows, positions * channels), elements=st.integers(0, 3).map(float))
    return draw(values), Layout(positions, channels)


@pytest.mark.parametrize("name", NAMES)
def test_names_read_back(name: str) -> None:
    assert parse(name).name == name


def test_a_block_of_one_is_unstructured() -> None:
    assert parse("block:1x1").name == "unstructured"


@settings(max_examples=30, deadline=None)
@given(saliencies(), st.sampled_from(NAMES))
def test_projections_have_exact_counts_and_pass_their_own_check(drawn: tuple[np.ndarray, Layout], name: str) -> None:
    saliency, layout = drawn
    pattern = parse(name)
    level = level_of(pattern)
    mask = pattern.project(saliency, layout, level)
    if pattern.fixed_level is not None:
        assert mask.mean() == pytest.approx(1 - pattern.fixed_level, abs=1e-12)
    else:
        units = saliency.size // (pattern.rows * pattern.width * (layout.positions if name == "kernel" else 1))
        assert mask.sum() * units == kept_count(units, level) * saliency.size
    weight = masked(np.ones(saliency.shape, np.float32), mask)
    proof = pattern.check(weight, layout, level)
    assert proof.passed and proof.valid == proof.units
    assert np.array_equal(pattern.project(saliency.copy(), layout, level), mask)


@settings(max_examples=30, deadline=None)
@given(saliencies(), st.sampled_from([n for n in NAMES if not n.startswith("vnm")]))
def test_no_other_allowed_mask_keeps_more(drawn: tuple[np.ndarray, Layout], name: str) -> None:
    """Random allowed masks, from random saliencies, never keep more."""
    saliency, layout = drawn
    pattern = parse(name)
    level = level_of(pattern)
    best = saliency[pattern.project(saliency, layout, level)].sum()
    random = np.random.default_rng(0)
    for _ in range(5):
        other = pattern.project(random.random(saliency.shape), layout, level)
        assert saliency[other].sum() <= best + 1e-9


@settings(max_examples=30, deadline=None)
@given(saliencies(), st.sampled_from(("2:4", "3:16", "block:4x1", "unstructured")))
def test_among_equals_the_first_stay(drawn: tuple[np.ndarray, Layout], name: str) -> None:
    saliency, layout = drawn
    pattern = parse(name)
    level = level_of(pattern)
    falling = -np.arange(saliency.size).reshape(saliency.shape) * 1e-9
    assert np.array_equal(pattern.project(saliency * 0, layout, level), pattern.project(falling + 1, layout, level))


def test_groups_run_along_input_channels_and_not_along_kernel_positions() -> None:
    layout = Layout(9, 4)
    saliency = np.zeros((1, 36))
    saliency[0, [0, 1, 4, 5]] = 1  # channels 0 and 1 of the first two positions
    mask = parse("2:4").project(saliency, layout, 0.5)
    assert mask.reshape(9, 4)[:2].tolist() == [[True, True, False, False]] * 2
    assert (mask.reshape(9, 4).sum(axis=1) == 2).all()


def test_kernels_go_whole() -> None:
    layout = Layout(9, 4)
    mask = parse("kernel").project(np.random.default_rng(0).random((8, 36)), layout, 0.5)
    by_kernel = mask.reshape(8, 9, 4).sum(axis=1)
    assert set(by_kernel.ravel().tolist()) == {0, 9} and mask.sum() == 8 * 4 * 9 // 2


def test_vnm_rows_share_four_columns() -> None:
    mask = parse("vnm:4:2:16").project(np.random.default_rng(0).random((8, 32)), Layout(1, 32), 0.875)
    blocks = mask.reshape(2, 4, 2, 16)
    assert (blocks.sum(axis=3) == 2).all() and (blocks.any(axis=1).sum(axis=2) <= 4).all()


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("2:4", np.array([[1, 1, 1, 0], [1, 0, 0, 0]])),
        ("block:2x1", np.array([[1, 0, 1, 1], [0, 0, 1, 1]])),
        ("vnm:2:2:8", np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0]])),
        ("unstructured", np.array([[1, 0, 1, 1], [0, 0, 1, 1]])),
    ],
)
def test_the_check_sees_a_planted_weight(name: str, weight: np.ndarray) -> None:
    pattern = parse(name)
    level = None if pattern.fixed_level is not None else 0.5
    assert not pattern.check(weight.astype(np.float32), Layout(1, weight.shape[1]), level).passed


def test_zeros_are_positive() -> None:
    found = masked(np.array([-0.0, -1.0, np.nan, 2.0], np.float32), np.array([True, False, False, True]))
    assert found.tolist() == [0, 0, 0, 2] and not np.signbit(found).any() and found.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "outputs", "layout", "words"),
    [
        ("2:4", 8, Layout(1, 6), "multiples of 4, there are 6"),
        ("2:4", 8, Layout(9, 3), "multiples of 4, there are 3"),
        ("block:16x1", 24, Layout(1, 8), "output channels in multiples of 16, there are 24"),
        ("block:1x4", 24, Layout(1, 6), "input channels in multiples of 4, there are 6"),
        ("vnm:64:2:8", 32, Layout(1, 8), "multiples of 64, there are 32"),
    ],
)
def test_what_does_not_divide_is_refused(name: str, outputs: int, layout: Layout, words: str) -> None:
    pattern = parse(name)
    assert words in str(pattern.refusal(outputs, layout))
    with pytest.raises(PrunecError, match="PC225"):
        pattern.project(np.ones((outputs, layout.columns)), layout, level_of(pattern))
    assert not pattern.check(np.zeros((outputs, layout.columns)), layout, level_of(pattern)).passed


@pytest.mark.parametrize(
    "text", ["4:2", "2:2", "0:4", "block:0x1", "block:4", "vnm:64:2:2", "24", "", "2:4:8", "channels"]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(PrunecError, match="PC215"):
        parse(text)


@pytest.mark.parametrize(("name", "asked"), [("2:4", 0.7), ("unstructured", None), ("block:4x1", 0.0), ("kernel", 1.0)])
def test_levels_that_contradict_are_refused(name: str, asked: float | None) -> None:
    with pytest.raises(PrunecError, match="PC224"):
        parse(name).level(asked)


def test_saliency_that_is_not_finite_is_refused() -> None:
    with pytest.raises(PrunecError, match="PC330"):
        parse("2:4").project(np.array([[1.0, np.nan, 0, 0]]), Layout(1, 4), 0.5)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 3).map(float)), st.integers(0, 41))
def test_top_k_is_a_stable_sort(values: np.ndarray, k: int) -> None:
    wanted = np.zeros(len(values), bool)
    wanted[np.argsort(-values, kind="stable")[:k]] = True
    assert np.array_equal(top_k(values, k), wanted)
    assert np.array_equal(top_k_rows(values[None], k)[0], wanted)
