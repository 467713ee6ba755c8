"""The ratio and its interval on synthetic block times."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.measure.ratio import bootstrap_median, ratio
from prunec.measure.results import Speedup


def noisy(median: float, seed: int, *, between: float = 0.0, shape: tuple[int, int] = (5, 8)) -> np.ndarray:
    """Block medians with the right tail that real ones have, and a scatter `between` processes."""
    rng = np.random.default_rng(seed)
    return median * (1 + between * rng.normal(size=(shape[0], 1))) * (1 + 0.03 * rng.gamma(2.0, size=shape))


def test_a_planted_ratio_is_recovered() -> None:
    speedup = ratio(noisy(2.0, seed=1), noisy(1.0, seed=2), seed=0)
    assert speedup.median == pytest.approx(2.0, rel=0.05)
    assert speedup.ci95[0] < 2.0 < speedup.ci95[1]
    assert speedup.verdict == "faster"
    assert ratio(noisy(1.0, seed=2), noisy(2.0, seed=1), seed=0).verdict == "slower"


def test_a_common_drift_cancels() -> None:
    drift = np.linspace(1.0, 3.0, 40).reshape(5, 8)
    speedup = ratio(1.5 * drift, drift, seed=0)
    assert speedup.ci95 == pytest.approx((1.5, 1.5))


@pytest.mark.parametrize("between", [0.0, 0.05])
def test_no_difference_is_found_where_there_is_none(between: float) -> None:
    """Also where processes of the same model differ among themselves: that alone must not look like a result."""
    wrong = sum(
        ratio(noisy(1.0, 2 * trial, between=between), noisy(1.0, 2 * trial + 1, between=between), seed=trial).verdict
        != "no difference shown"
        for trial in range(60)
    )
    assert wrong <= 10


def test_the_interval_is_seeded() -> None:
    values = noisy(1.0, seed=5)
    assert bootstrap_median(values, seed=7) == bootstrap_median(values, seed=7)
    assert bootstrap_median(values, seed=7) != bootstrap_median(values, seed=8)


@pytest.mark.parametrize(
    ("baseline", "subject"), [([[1.0] * 8], [[1.0] * 7]), ([[1.0] * 5], [[1.0] * 5]), ([1.0] * 8, [1.0] * 8)]
)
def test_unpaired_or_too_few_blocks_are_refused(baseline: list[list[float]], subject: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="blocks"):
        ratio(baseline, subject, seed=0)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.01, 1.2), "faster"),
        ((0.8, 0.99), "slower"),
        ((0.9, 1.1), "no difference shown"),
        ((1.0, 1.2), "no difference shown"),
    ],
)
def test_a_direction_needs_an_interval_without_1(interval: tuple[float, float], verdict: str) -> None:
    assert Speedup(median=1.0, ci95=interval).verdict == verdict
