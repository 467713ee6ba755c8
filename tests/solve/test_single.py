"""Solvers by name: what each promises, and what happens where it cannot do a layer."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.passes.solve import MASKS, SINGLE, LayerProblem, solve
from prunec.patterns import Layout, parse


def problem(centred: bool = True, outputs: int = 24, inputs: int = 32, positions: int = 1) -> LayerProblem:
    """Correlated inputs with means; targets from the dense weight."""
    random = np.random.default_rng(0)
    mixing = random.standard_normal((inputs, inputs)) * np.exp(-np.arange(inputs) / 10)
    x = random.standard_normal((2500, inputs)) @ mixing.T + random.standard_normal(inputs)
    weight = random.standard_normal((outputs, inputs))
    t = x @ weight.T
    layout = Layout(positions, inputs // positions)
    return LayerProblem.of_rows(weight, (x[:2000], t[:2000]), (x[2000:], t[2000:]), layout, centred=centred)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize(("pattern", "level"), [("2:4", 0.5), ("unstructured", 0.6), ("block:4x1", 0.5)])
@pytest.mark.parametrize("centred", [True, False])
def test_each_gives_the_pattern(name: str, pattern: str, level: float, centred: bool) -> None:
    own = problem(centred)
    found = solve(own, parse(pattern), level, name)  # type: ignore[arg-type]
    for weight in (found.weight, found.plain):
        assert parse(pattern).check(weight, own.layout, level).passed
    assert np.isfinite(found.chosen.error_held_out)
    if name in MASKS:
        assert np.array_equal(found.weight, np.where(found.mask, own.weight, 0)) and found.chosen.method == name
    elif not found.notes:
        assert found.chosen.method == name
        assert found.chosen.error_held_out < 0.7 * own.held_out.error(found.plain)


def test_magnitude_and_wanda_are_what_their_papers_say() -> None:
    own = problem(centred=False)
    groups = np.abs(own.weight).reshape(24, -1, 4)
    kept = solve(own, parse("2:4"), 0.5, "magnitude").mask.reshape(24, -1, 4)
    assert (np.where(kept, groups, np.inf).min(axis=2) >= np.where(kept, -np.inf, groups).max(axis=2)).all()
    score = np.abs(own.weight) * np.sqrt(own.fit.hessian.diagonal())
    mask = solve(own, parse("unstructured"), 0.5, "wanda").mask
    assert (mask.sum(axis=1) == 16).all()
    assert (np.where(mask, score, np.inf).min(axis=1) >= np.where(mask, -np.inf, score).max(axis=1)).all()


@pytest.mark.parametrize("centred", [True, False])
def test_dsnot_brings_mean_errors_down(centred: bool) -> None:
    own = problem(centred)
    wanda, swapped = (solve(own, parse("2:4"), 0.5, name).weight for name in ("wanda", "dsnot"))  # type: ignore[arg-type]
    before, after = (np.abs((own.weight - weight) @ own.fit.mean).mean() for weight in (wanda, swapped))
    assert after < 0.8 * before


@pytest.mark.parametrize(
    ("name", "pattern", "positions", "why"),
    [
        ("dsnot", "block:4x1", 1, "swaps single weights"),
        ("sparsegpt", "kernel", 4, "a whole kernel's columns are not side by side"),
        ("exactobs", "vnm:8:2:8", 1, "ExactOBS is there for N:M and blocks"),
    ],
)
def test_what_a_solver_cannot_do_is_left_to_the_mask_and_said(
    name: str, pattern: str, positions: int, why: str
) -> None:
    own = problem(positions=positions)
    parsed = parse(pattern)
    found = solve(own, parsed, parsed.level(None if parsed.fixed_level else 0.5), name)  # type: ignore[arg-type]
    assert len(found.notes) == 1 and why in found.notes[0] and found.notes[0].endswith("Wanda's mask stands")
    assert np.array_equal(found.weight, np.where(found.mask, own.weight, 0))
