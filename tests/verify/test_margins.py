"""Bounds on the drop of a metric that says one number, from mixtures of two models' answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from prunec.verify import margins
from prunec.verify.bounds import upper_share
from prunec.verify.inputs import Feeds, Run
from prunec.verify.margins import GROUPS, Remembered, upper_drop
from prunec.verify.quality import quality_by_metric

SAMPLES = 1000
POOL = 250


def answering(right: np.ndarray) -> Run:
    """Gives for the number of a sample whether it is right about it."""
    return lambda feeds: {"y": right[feeds["x"]].astype(np.float32)}


def accuracy(run: Run, batch: int = 50) -> float:
    found = [run({"x": np.arange(start, start + batch)})["y"] for start in range(0, SAMPLES, batch)]
    return float(np.concatenate(found).mean(dtype=np.float64))


def bound(dense: np.ndarray, pruned: np.ndarray, metric: Callable[[Run], float] = accuracy) -> float | None:
    one, other = Remembered(answering(dense)), Remembered(answering(pruned))
    before, after = metric(one), metric(other)
    return upper_drop(metric, one, other, before, after, SAMPLES)


def changed(rng: np.random.Generator, worse: float, better: float) -> tuple[np.ndarray, np.ndarray]:
    dense = rng.random(SAMPLES) < 0.9
    pruned = dense.copy()
    pruned[dense & (rng.random(SAMPLES) < worse / 0.9)] = False
    pruned[~dense & (rng.random(SAMPLES) < better / 0.1)] = True
    return dense, pruned


@pytest.mark.parametrize(("worse", "better"), [(0.03, 0.02), (0.03, 0.01), (0.05, 0.03), (0.01, 0.0)])
def test_the_bound_holds_nine_times_of_ten(worse: float, better: float) -> None:
    """Where the drop alone, taken for all that changed, is bound too tightly: with changes in both directions."""
    rng = np.random.default_rng(0)
    bounds = [bound(*changed(rng, worse, better)) for _ in range(300)]
    held = np.mean([found is not None and found >= worse - better for found in bounds])
    assert held >= 0.86
    if better:
        naive = [
            upper_share(max(float(d.mean() - p.mean()), 0) * SAMPLES, SAMPLES)
            for d, p in (changed(rng, worse, better) for _ in range(300))
        ]
        assert np.mean(np.array(naive) >= worse - better) < held


def test_nothing_changed_is_bound_as_nothing_seen() -> None:
    right = np.random.default_rng(0).random(SAMPLES) < 0.9
    assert bound(right, right) == pytest.approx(upper_share(0, SAMPLES))


def test_the_same_whatever_the_batches() -> None:
    dense, pruned = changed(np.random.default_rng(1), 0.04, 0.02)
    found = [bound(dense, pruned, lambda run, n=n: accuracy(run, n)) for n in (1, 50, 1000)]
    assert found[0] == pytest.approx(found[1]) == pytest.approx(found[2])


def test_what_does_not_add_up_is_added() -> None:
    """A number that falls at once when all samples are worse: mixtures show nothing of it, so it may come twice."""
    dense, pruned = changed(np.random.default_rng(1), 0.3, 0.0)
    assert bound(dense, pruned, lambda run: float(accuracy(run) > pruned.mean() + 1e-6)) == 1.0
    assert bound(dense, pruned, lambda run: 10 * float(accuracy(run) > pruned.mean() + 1e-6)) is None
    plain = bound(dense, pruned)
    assert plain is not None and plain < 0.4


def pool(rng: np.random.Generator, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Questions and answers [number, side, feature] as a dense model places them, and one that errs by `noise`."""
    meant = rng.standard_normal((POOL, 1, 24))
    dense = meant + 0.9 * rng.standard_normal((POOL, 2, 24))
    return dense, dense + noise * rng.standard_normal(dense.shape)


def found_first(run: Run) -> float:
    """R@1: each question's own answer is the nearest of all."""
    placed = run({"x": np.arange(POOL)})["y"]
    one, other = (placed[:, side] / np.linalg.norm(placed[:, side], axis=1, keepdims=True) for side in (0, 1))
    return float(((one @ other.T).argmax(axis=1) == np.arange(POOL)).mean())


def placing(places: np.ndarray) -> Run:
    return lambda feeds: {"y": places[feeds["x"]]}


@pytest.mark.parametrize("noise", [0.1, 0.25, 0.4])
def test_the_bound_holds_where_samples_are_looked_for_among_each_other(noise: float) -> None:
    rng = np.random.default_rng(0)
    drops, bounds = [], []
    for _ in range(60):
        dense, pruned = (placing(places) for places in pool(rng, noise))
        before, after = found_first(dense), found_first(pruned)
        drops.append(before - after)
        bounds.append(upper_drop(found_first, dense, pruned, before, after, POOL))
    expected = float(np.mean(drops))
    assert np.mean([found is not None and found >= expected for found in bounds]) >= 0.86
    assert np.mean(np.array(drops) >= expected) < 0.7  # the drop by itself is no bound


def test_a_smooth_function_of_a_mean_nearly_adds_up() -> None:
    dense, pruned = changed(np.random.default_rng(1), 0.04, 0.02)
    plain, root = bound(dense, pruned), bound(dense, pruned, lambda run: accuracy(run) ** 0.5)
    assert plain is not None and root is not None
    assert root == pytest.approx(dense.mean() ** 0.5 - (dense.mean() - plain) ** 0.5, rel=0.05)


def test_means_that_are_no_shares_have_a_bound_too() -> None:
    rng = np.random.default_rng(2)
    dense = 40 + rng.standard_normal(SAMPLES)
    pruned = dense - 0.5 + rng.standard_normal(SAMPLES)
    found = bound(dense, pruned)
    assert found is not None and 0.5 < found < 0.7


def test_every_input_is_answered_once_and_may_be_written_to() -> None:
    calls = []

    def run(feeds: Feeds) -> Feeds:
        calls.append(len(feeds["x"]))
        return {"y": feeds["x"].astype(np.float32)}

    def careless(run: Run) -> float:
        total = 0.0
        for start in range(0, 4 * GROUPS, 4):
            y = run({"x": np.arange(start, start + 4)})["y"]
            total += float(y.sum())
            y[:] = 0
        return total

    remembered = Remembered(run)
    assert careless(remembered) == careless(remembered) == sum(range(4 * GROUPS))
    assert len(calls) == GROUPS


def test_what_is_too_large_to_keep_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins, "MOST_BYTES", 3 * 50 * 4)
    dense, pruned = changed(np.random.default_rng(1), 0.04, 0.02)
    small = bound(dense, pruned)
    monkeypatch.undo()
    assert small == bound(dense, pruned)


def test_only_a_plan_for_a_drop_pays_for_a_bound() -> None:
    dense, pruned = (answering(right) for right in changed(np.random.default_rng(1), 0.04, 0.02))
    asked = []

    def counted(run: Run) -> float:
        asked.append(run)
        return accuracy(run)

    before = {"counted": accuracy(dense)}
    plain = quality_by_metric(counted, before, pruned)
    assert len(asked) == 1 and plain.drop_upper is None and plain.samples == SAMPLES
    found = quality_by_metric(counted, before, pruned, dense=Remembered(dense))
    assert len(asked) == 2 + GROUPS and found.drop_upper is not None and found.drop == plain.drop
