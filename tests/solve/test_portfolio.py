from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.diagnostics import PrunecError
from prunec.passes.solve import EFFORTS, LayerProblem, order_inputs, order_outputs, solve
from prunec.patterns import Layout, parse
from tests.solve.problems import layer, rows

CASES = [
    ("2:4", 0.5),
    ("block:4x1", 0.5),
    ("block:4x4", 0.5),
    ("unstructured", 0.6),
    ("kernel", 0.5),
    ("vnm:4:2:8", 0.75),
]


@pytest.mark.parametrize(("name", "level"), CASES)
@pytest.mark.parametrize("effort", EFFORTS)
def test_every_effort_meets_every_pattern_and_never_loses_to_the_plain_mask(
    name: str, level: float, effort: str
) -> None:
    pattern, layout = parse(name), Layout(2, 16)
    problem = layer(layout=layout)
    found = solve(problem, pattern, level, effort)  # type: ignore[arg-type]
    assert pattern.check(found.weight, layout, level).passed
    assert not found.weight[~found.mask].any() and not np.signbit(found.weight[~found.mask]).any()
    plain = next(t for t in found.trials if t.method == "mask")
    assert found.chosen.error_held_out == min(t.error_held_out for t in found.trials) < plain.error_held_out
    assert found.chosen.error_held_out == pytest.approx(problem.held_out.error(found.weight), rel=1e-9)


def test_with_uncorrelated_inputs_and_few_samples_the_plain_mask_stays() -> None:
    found = solve(layer(outputs=32, width=64, alpha=0.0, samples=80), parse("2:4"), 0.5, "fast")
    assert found.chosen.method == "mask" and len(found.trials) > 1


def test_drifted_inputs_are_fitted_to_the_dense_target() -> None:
    """Half of the inputs arrive scaled down; the weights can undo that."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((16, 32))
    x = rows(random, 2000, 32, 1.0)
    t, drifted = x @ weight.T, x * np.where(np.arange(32) % 2, 1.0, 0.5)
    problem = LayerProblem.of_rows(weight, (drifted[:1600], t[:1600]), (drifted[1600:], t[1600:]))
    found = solve(problem, parse("unstructured"), 0.1)
    assert found.chosen.error_held_out < 0.1 * problem.held_out.error(weight)


def test_the_result_is_a_function_of_the_problem() -> None:
    a, b = (solve(layer(), parse("2:4"), 0.5, "best").weight for _ in range(2))
    assert np.array_equal(a, b)


# -- bad input -------------------------------------------------------------------------------------------------------


def bad(change: str) -> LayerProblem:
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((8, 16)), rows(random, 256, 16, 1.0)
    if change == "few samples":
        x = x[:12]
    if change == "dead inputs":
        x[:, 4:7] = 0
    if change == "outliers":
        x[:, 3] *= 10
        x[5] *= 10
    if change == "constant inputs":
        x[:] = x[0]
    if change == "one constant input":
        x[:, 3] = 7
    t = x @ weight.T
    if change == "NaN":
        x[3, 3] = np.nan
    half = len(x) // 2
    centred = "constant" in change
    return LayerProblem.of_rows(weight, (x[:half], t[:half]), (x[half:], t[half:]), centred=centred)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("change", ["few samples", "dead inputs", "outliers", "constant inputs", "one constant input"])
def test_poor_data_gives_a_valid_finite_answer(change: str, effort: str) -> None:
    found = solve(bad(change), parse("2:4"), 0.5, effort)  # type: ignore[arg-type]
    assert np.isfinite(found.weight).all() and parse("2:4").check(found.weight, Layout(1, 16)).passed
    assert np.abs(found.weight).max() < 100


def test_few_samples_and_dead_inputs_are_said() -> None:
    assert "fewer samples" in " ".join(solve(bad("few samples"), parse("2:4"), 0.5).notes)
    assert "3 inputs are always zero" in " ".join(solve(bad("dead inputs"), parse("2:4"), 0.5).notes)


@pytest.mark.parametrize("effort", EFFORTS)
def test_what_fp16_rounds_away_carries_nothing(effort: str) -> None:
    """An input that varies by 1e-4 of its value, and tells much: what is made of it would be noise in FP16."""
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((8, 16)), rows(random, 256, 16, 1.0)
    hidden = random.standard_normal(256)
    x[:, 3] = 5 + 5e-4 * hidden
    t = x @ weight.T + hidden[:, None]
    problem = LayerProblem.of_rows(weight, (x[:128], t[:128]), (x[128:], t[128:]), centred=True)
    found = solve(problem, parse("2:4"), 0.5, effort)  # type: ignore[arg-type]
    assert np.abs(found.weight).max() < 10
    rounded = (x.astype(np.float16) - x).astype(np.float64)
    assert np.abs(rounded @ found.weight.T).max() < 0.1


def test_dead_inputs_go_first() -> None:
    """Of inputs 4 to 7 only the last is alive; 2:4 has to keep one of the others beside it."""
    assert solve(bad("dead inputs"), parse("2:4"), 0.5, "fast").mask[:, 7].all()


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(PrunecError, match="PC330"):
        bad("NaN")


def test_no_samples_are_refused() -> None:
    with pytest.raises(PrunecError, match="PC331"):
        LayerProblem.of_rows(np.ones((2, 4)), (np.ones((0, 4)), np.ones((0, 2))), (np.ones((1, 4)), np.ones((1, 2))))


def test_a_width_that_does_not_divide_is_refused() -> None:
    with pytest.raises(PrunecError, match="PC225"):
        solve(layer(width=30), parse("2:4"), 0.5)


# -- permutation -----------------------------------------------------------------------------------------------------


def test_permutation_beats_the_published_search_on_its_reference_matrix() -> None:
    """ASP's stripe search gets 35.5 % of what is between the default order and no pattern at all."""
    matrix, pattern, layout = np.random.default_rng(0).random((64, 128)), parse("2:4"), Layout(1, 128)
    order = order_inputs(matrix, layout, pattern, 0.5)
    assert order is not None and sorted(order.tolist()) == list(range(128))
    before, after = (float(m[pattern.project(m, layout, 0.5)].sum()) for m in (matrix, matrix[:, order]))
    ideal = float(np.sort(matrix, axis=None)[matrix.size // 2 :].sum())
    assert (after - before) / (ideal - before) >= 0.36


@pytest.mark.parametrize("name", ["block:4x1", "block:4x4", "block:1x4"])
def test_permuted_blocks_keep_more(name: str) -> None:
    pattern, layout = parse(name), Layout(1, 64)
    random = np.random.default_rng(0)
    hidden = random.random((8, 64)) ** 4
    saliency = hidden[random.integers(0, 8, 64)][:, random.permutation(64)]  # rows of eight kinds, shuffled
    inputs, outputs = order_inputs(saliency, layout, pattern, 0.7), order_outputs(saliency, pattern, 0.7)
    inputs = np.arange(64) if inputs is None else inputs
    outputs = np.arange(64) if outputs is None else outputs
    turned = saliency[np.ix_(outputs, inputs)]
    before, after = (float(m[pattern.project(m, layout, 0.7)].sum()) for m in (saliency, turned))
    assert after > 1.02 * before


def test_where_order_does_not_matter_none_is_given() -> None:
    assert order_inputs(np.ones((8, 16)), Layout(1, 16), parse("unstructured"), 0.5) is None
    assert order_outputs(np.ones((8, 16)), parse("2:4"), 0.5) is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100), st.sampled_from(["2:4", "block:1x4"]))
def test_a_permuted_problem_is_the_same_problem(seed: int, name: str) -> None:
    problem = layer(seed=seed, layout=Layout(2, 16))
    order = np.random.default_rng(seed).permutation(16)
    turned = problem.permuted(order)
    columns = (np.arange(2)[:, None] * 16 + order).ravel()
    other = np.random.default_rng(seed).standard_normal(problem.weight.shape)
    assert turned.held_out.error(other[:, columns]) == pytest.approx(problem.held_out.error(other), rel=1e-9)
