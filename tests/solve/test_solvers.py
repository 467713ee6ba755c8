from __future__ import annotations

import itertools

import numpy as np
import pytest

from prunec.passes.solve import dsnot, exactobs
from prunec.passes.solve.admm import admm
from prunec.passes.solve.masks import magnitude_mask, wanda_mask
from prunec.passes.solve.problem import LayerProblem
from prunec.passes.solve.quadratic import Quadratic, quadratic
from prunec.passes.solve.refit import _is_worth_factors, refit
from prunec.passes.solve.sparsegpt import inverse_factor, sparsegpt
from prunec.patterns import Layout, parse
from tests.solve.problems import layer, rows

PATTERNS = [("2:4", 0.5), ("block:4x1", 0.5), ("block:4x4", 0.5), ("unstructured", 0.6), ("kernel", 0.5)]


def loss(q: Quadratic, weight: np.ndarray) -> float:
    change = weight - q.target
    return float(np.vdot(change @ q.matrix(), change))


def best_on(q: Quadratic, mask: np.ndarray) -> np.ndarray:
    """Row by row, the slow way."""
    a, goal = q.matrix(), q.target @ q.matrix()
    found = np.zeros(mask.shape)
    for i, support in enumerate(mask):
        if support.any():
            found[i, support] = np.linalg.solve(a[np.ix_(support, support)], goal[i, support])
    return found


@pytest.mark.parametrize(("name", "level"), PATTERNS)
def test_refit_is_the_exact_minimum_on_the_mask(name: str, level: float) -> None:
    pattern = parse(name)
    q = quadratic(layer(layout=Layout(4, 8)), 0.05)
    mask = wanda_mask(q, pattern, level)
    found = refit(q, mask, pattern.rows)
    np.testing.assert_allclose(found, best_on(q, mask), rtol=1e-9, atol=1e-11)
    assert not found[~mask].any()


def test_refit_copes_with_rows_of_all_sizes() -> None:
    q = quadratic(layer(), 0.05)
    mask = np.tril(np.ones((16, 32), bool), k=8)
    mask[3] = False
    np.testing.assert_allclose(refit(q, mask), best_on(q, mask), rtol=1e-9, atol=1e-11)


def test_conjugate_gradients_agree_with_the_direct_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    q = quadratic(layer(alpha=0.5), 0.05)
    mask = wanda_mask(q, parse("2:4"), 0.5)
    direct = refit(q, mask)
    monkeypatch.setattr("prunec.passes.solve.refit.DIRECT_UP_TO", 0)
    np.testing.assert_allclose(refit(q, mask), direct, rtol=1e-3, atol=1e-4)


def test_rows_give_what_the_matrix_gives() -> None:
    """A layer too wide for H: the same problem from its rows."""
    whole, as_rows = layer(samples=200), layer(samples=200, as_rows=True)
    for damping in (0.01, 0.3):
        a, b = quadratic(whole, damping), quadratic(as_rows, damping)
        np.testing.assert_allclose(a.target, b.target, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(a.operator()(a.target), b.operator()(a.target), rtol=1e-9, atol=1e-9)
        found = [admm(q, parse("2:4"), 0.5, iterations=30).mask for q in (a, b)]
        assert (found[0] == found[1]).mean() > 0.99


@pytest.mark.parametrize("samples", [24, 200])
def test_rows_that_share_a_mask_are_solved_through_the_rows(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows than weights are left, and more: the smaller of two matrices is factorised."""
    whole, as_rows = layer(16, 96, samples=samples), layer(16, 96, samples=samples, as_rows=True)
    a, b = quadratic(whole, 0.01), quadratic(as_rows, 0.01)
    pattern = parse("block:8x1")
    mask = wanda_mask(a, pattern, 0.5)
    monkeypatch.setattr("prunec.passes.solve.refit._conjugate_gradient", None)
    found = refit(b, mask, pattern.rows)
    np.testing.assert_allclose(found, best_on(a, mask), rtol=1e-3, atol=2e-4)
    assert not found[~mask].any()


def test_factors_are_compared_with_conjugate_gradients() -> None:
    """Blocks of a wide layer share factors; single rows of it would each need their own."""
    mask = np.zeros((128, 8192), bool)
    mask[:, ::4] = True
    assert _is_worth_factors(mask, 16, 2048, 1024)
    assert not _is_worth_factors(mask, 1, 2048, 1024)


def test_target_is_the_ridge_regression_towards_the_old_weights() -> None:
    random = np.random.default_rng(0)
    weight, drifted = random.standard_normal((6, 8)), rows(random, 300, 8, 0.5)
    target = (drifted + 0.3 * random.standard_normal(drifted.shape)) @ weight.T
    problem = LayerProblem.of_rows(weight, (drifted, target), (drifted, target))
    h, g = drifted.T @ drifted / 300, target.T @ drifted / 300
    for kind, d in (("diagonal", np.diag(np.diag(h))), ("mean", np.eye(8) * np.diag(h).mean())):
        q = quadratic(problem, 0.1, kind)  # type: ignore[arg-type]
        wanted = (g + 0.1 * weight @ d) @ np.linalg.inv(h + 0.1 * d)
        np.testing.assert_allclose(q.unscale(q.target), wanted, rtol=1e-8)
        np.testing.assert_allclose(q.scale[:, None] * q.matrix() * q.scale, h + 0.1 * d, rtol=1e-9, atol=1e-12)


def test_errors_are_those_of_the_rows() -> None:
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((6, 8)), rows(random, 300, 8, 0.5) + 1
    t = x @ weight.T
    other = weight + 0.1 * random.standard_normal(weight.shape)
    for centred in (False, True):
        problem = LayerProblem.of_rows(weight, (x, t), (x, t), centred=centred)
        bias = problem.fit.bias(other) if centred else 0
        wanted = np.square(t - x @ other.T - bias).sum() / np.square(t).sum()
        assert problem.fit.error(other) == pytest.approx(wanted, rel=1e-9)


def sparsegpt_by_columns(q: Quadratic) -> np.ndarray:
    """2:4 as the paper's pseudo-code has it, one row at a time and without lazy blocks."""
    upper = np.linalg.cholesky(np.linalg.inv(q.matrix())).T
    found = q.target.copy()
    for row in found:
        kept: set[int] = set()
        for i in range(len(row)):
            if i % 4 == 0:
                kept = {i + int(j) for j in np.argsort(-((row[i : i + 4] / np.diag(upper)[i : i + 4]) ** 2))[:2]}
            if i not in kept:
                row[i:] -= row[i] / upper[i, i] * upper[i, i:]
                row[i] = 0
    return found


def test_sparsegpt_is_the_published_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.passes.solve.sparsegpt.BLOCK", 8)
    q = quadratic(layer(), 0.01, "mean", to_dense=False)
    weight, mask, notes = sparsegpt(q, parse("2:4"), 0.5)
    np.testing.assert_allclose(weight, sparsegpt_by_columns(q), rtol=1e-8, atol=1e-10)
    assert not weight[~mask].any() and notes == ()


@pytest.mark.parametrize(("name", "level"), PATTERNS[:4])
def test_sparsegpt_meets_the_pattern(name: str, level: float) -> None:
    pattern, layout = parse(name), Layout(1, 256)
    q = quadratic(layer(width=256), 0.01)
    weight, mask, _ = sparsegpt(q, pattern, level)
    assert pattern.check(weight, layout, level).passed and mask.mean() == pytest.approx(1 - level, abs=0.01)


def test_a_singular_system_is_damped_more_and_that_is_said() -> None:
    singular = np.ones((6, 6))
    upper, notes = inverse_factor(singular, 0.0)
    assert np.isfinite(upper).all() and len(notes) == 1 and "failed to factorise" in notes[0]


def test_exactobs_removes_what_brute_force_removes_first() -> None:
    q = quadratic(layer(outputs=1, width=6), 0.05)
    mask = exactobs.exactobs(q, parse("unstructured"), 1 / 6)
    losses = []
    for i in range(6):
        own = np.ones((1, 6), bool)
        own[0, i] = False
        losses.append(loss(q, best_on(q, own)))
    assert np.flatnonzero(~mask[0]).tolist() == [int(np.argmin(losses))]


@pytest.mark.parametrize(("name", "level"), PATTERNS[:4])
def test_better_masks_cost_less(name: str, level: float) -> None:
    """magnitude ≥ Wanda ≥ ADMM, ExactOBS after an exact refit of each, on correlated inputs."""
    pattern = parse(name)
    q = quadratic(layer(outputs=32, width=64, alpha=1.5, samples=2000), 0.01)
    masks = [
        magnitude_mask(q, pattern, level),
        wanda_mask(q, pattern, level),
        admm(q, pattern, level).mask,
        exactobs.exactobs(q, pattern, level),
    ]
    for mask in masks:
        assert pattern.check(mask.astype(float), q.layout, level).passed
    magnitude, wanda, alternating, surgeon = (loss(q, refit(q, mask, pattern.rows)) for mask in masks)
    assert alternating < 0.97 * min(wanda, magnitude) and surgeon < 0.97 * min(wanda, magnitude)


def test_admm_finds_the_best_mask_of_a_tiny_layer() -> None:
    """All 36 masks of two 2:4 groups."""
    q = quadratic(layer(outputs=1, width=8, alpha=0.5, seed=3), 0.05)
    pairs = list(itertools.combinations(range(4), 2))
    losses = []
    for a, b in itertools.product(pairs, pairs):
        mask = np.zeros((1, 8), bool)
        mask[0, [*a, *(4 + i for i in b)]] = True
        losses.append(loss(q, best_on(q, mask)))
    assert loss(q, refit(q, admm(q, parse("2:4"), 0.5).mask)) <= sorted(losses)[2] * (1 + 1e-9)


def test_dsnot_lowers_the_mean_error_and_keeps_the_counts() -> None:
    random = np.random.default_rng(0)
    weight, x = random.standard_normal((16, 32)), rows(random, 500, 32, 1.0) + 1.0
    problem = LayerProblem.of_rows(weight, (x, x @ weight.T), (x, x @ weight.T))
    q, pattern = quadratic(problem, 0.01, to_dense=False), parse("2:4")
    before = wanda_mask(q, pattern, 0.5)
    after = dsnot.dsnot(q, pattern, before, problem.fit.mean)
    assert pattern.check(after.astype(float), q.layout).passed and (after != before).any()
    errors = [np.abs((np.where(mask, 0, weight) * problem.fit.mean).sum(axis=1)) for mask in (before, after)]
    assert (errors[1] <= errors[0] + 1e-12).all() and errors[1].mean() < 0.65 * errors[0].mean()
    assert "block:4x1" in str(dsnot.refusal(parse("block:4x1")))
