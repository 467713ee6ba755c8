"""Distances between results, and what they say about NaN, shapes and integers."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.verify.metrics import Agreement, max_relative, worst_relative

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([NAN, 2.0], [NAN, 1.0], 0.5),
        ([NAN, 2.0], [0.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([INF, 2.0], [INF, 1.0], 0.5),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], INF),
        ([1.0, 2.0], [1.0], INF),
        ([], [], 0.0),
    ],
)
def test_max_relative(reference: list[float], candidate: list[float], expected: float) -> None:
    assert max_relative(np.array(reference), np.array(candidate)) == expected


def test_integers_have_to_be_equal() -> None:
    a = np.array([1, 2, 1000])
    assert max_relative(a, a.copy()) == 0
    assert max_relative(a, np.array([1, 2, 1001])) == INF


def test_worst_output_counts() -> None:
    y = {"a": np.ones(2), "b": np.ones(2)}
    assert worst_relative(y, {"b": np.array([1, 0.5]), "a": np.ones(2)}) == 0.5


def test_agreement_is_independent_of_the_batching() -> None:
    rng = np.random.default_rng(0)
    y, z = rng.standard_normal((2, 12, 5))
    whole, parts = Agreement(), Agreement()
    whole.add(y, z)
    for i in range(0, 12, 3):
        parts.add(y[i : i + 3], z[i : i + 3])
    assert parts.numbers() == pytest.approx(whole.numbers(), rel=1e-12)
    assert whole.numbers()["relative_error"] == pytest.approx(np.linalg.norm(y - z) / np.linalg.norm(y))
    assert whole.numbers()["top1_agreement"] == (y.argmax(1) == z.argmax(1)).mean()
    cosines = (y * z).sum(1) / np.linalg.norm(y, axis=1) / np.linalg.norm(z, axis=1)
    assert whole.numbers()["cosine"] == pytest.approx(cosines.mean())


def test_top1_leads_only_where_answers_differ() -> None:
    scores, constant = Agreement(), Agreement()
    scores.add(np.eye(3), np.eye(3))
    constant.add(np.array([[1.0, 0, 0], [2, 0, 0]]), np.array([[1.0, 0, 0], [2, 1, 0]]))
    assert next(iter(scores.numbers())) == "top1_agreement"
    assert next(iter(constant.numbers())) == "cosine"


def test_images_are_compared_by_cosine() -> None:
    agreement = Agreement()
    y = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    agreement.add(y, y)
    assert agreement.numbers() == {"cosine": pytest.approx(1), "relative_error": 0}


def test_another_shape_agrees_about_nothing() -> None:
    agreement = Agreement()
    agreement.add(np.ones((2, 3)), np.ones((2, 4)))
    assert agreement.numbers() == {"cosine": 0, "relative_error": 1, "top1_agreement": 0}


def test_zero_answers_agree() -> None:
    agreement = Agreement()
    agreement.add(np.zeros((2, 1, 3, 3)), np.zeros((2, 1, 3, 3)))
    assert agreement.numbers() == {"cosine": 1, "relative_error": 0}


def test_one_number_per_sample_has_no_angle() -> None:
    agreement = Agreement()
    agreement.add(np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]]))
    numbers = agreement.numbers()
    assert list(numbers) == ["fidelity", "relative_error"]
    assert numbers["fidelity"] == pytest.approx(1 - np.sqrt(1 / 5))
