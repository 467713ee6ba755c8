"""Confidence bounds on drops, beside drawing many samples."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.verify.bounds import CONFIDENCE, finest_drop, samples_for, upper_mean, upper_share
from prunec.verify.margins import Remembered
from prunec.verify.metrics import Agreement
from prunec.verify.quality import quality_by_metric


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("samples", [40, 300])
def test_it_holds_as_often_as_it_says(share: float, samples: int) -> None:
    rng = np.random.default_rng(0)
    seen = rng.binomial(samples, share, 2000)
    bounds = {count: upper_share(float(count), samples) for count in set(seen.tolist())}
    held = np.mean([bounds[count] >= share for count in seen.tolist()])
    assert held >= CONFIDENCE - 0.02


def test_it_holds_for_means_of_other_numbers() -> None:
    rng = np.random.default_rng(1)
    held = np.mean([upper_mean(rng.gamma(0.5, 0.02, 200)) >= 0.01 for _ in range(1000)])
    assert CONFIDENCE - 0.06 <= held <= 0.99


def test_nothing_seen_rules_out_what_would_have_been_seen() -> None:
    assert finest_drop(230) == pytest.approx(1 - 0.1 ** (1 / 230))
    assert (1 - finest_drop(50)) ** 50 == pytest.approx(0.1)
    assert upper_share(5, 5) == 1.0


@pytest.mark.parametrize("drop", [0.001, 0.01, 0.3])
def test_the_fewest_samples_that_can_rule_out_a_drop(drop: float) -> None:
    enough = samples_for(drop)
    assert enough is not None and finest_drop(enough) <= drop < finest_drop(enough - 1)
    assert samples_for(0.0) is None and samples_for(1.0) is None


def test_losses_are_those_of_the_primary_number() -> None:
    rng = np.random.default_rng(2)
    agreement = Agreement()
    for _ in range(4):
        y = rng.standard_normal((3, 5, 7))
        z = y.copy()
        z[0, 0] = -y[0, 0]  # of five positions of the first sample, one answers something else
        agreement.add(y, z)
    losses = agreement.losses()
    assert losses is not None and losses.tolist() == pytest.approx([0.2, 0, 0] * 4)
    assert losses.mean() == pytest.approx(1 - agreement.numbers()["top1_agreement"])


def test_samples_of_a_metric_are_counted_where_they_run() -> None:
    def accuracy(run: object) -> float:
        assert callable(run)
        right = [run({"x": np.full((4, 2), i)})["y"] for i in range(25)]
        return float(np.concatenate(right).mean())

    ones = Remembered(lambda feeds: {"y": np.ones(len(feeds["x"]))})
    found = quality_by_metric(accuracy, {"accuracy": 1.0}, ones, dense=ones)
    assert found.drop == 0 and found.drop_upper == pytest.approx(finest_drop(100))
    other = quality_by_metric(lambda run: 17.0, {"<lambda>": 20.0}, lambda feeds: {}, dense=ones)
    assert other.drop == 3 and other.drop_upper is None
