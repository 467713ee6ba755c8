from __future__ import annotations

import numpy as np
import pytest

from prunec.plan.normalise import NORMALISATIONS, Normalise, normalise

SCORES = np.array([1.0, 2.0, 3.0, 6.0])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", SCORES),
        ("mean", SCORES / 3),
        ("max", SCORES / 6),
        ("standardise", (SCORES - 3) / np.sqrt(3.5)),
    ],
)
def test_formulas(how: Normalise, expected: np.ndarray) -> None:
    assert normalise(SCORES, how) == pytest.approx(expected)


@pytest.mark.parametrize("how", NORMALISATIONS)
def test_scale_is_removed_and_order_kept(how: Normalise) -> None:
    scores = np.random.default_rng(0).random(20)
    assert np.array_equal(np.argsort(normalise(scores, how)), np.argsort(scores))
    if how != "none":
        assert normalise(scores * 1e6, how) == pytest.approx(normalise(scores, how))


@pytest.mark.parametrize("how", NORMALISATIONS)
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_equal_scores_stay_equal_and_finite(how: Normalise, value: float) -> None:
    found = normalise(np.full(4, value), how)
    assert np.isfinite(found).all() and (found == found[0]).all()
