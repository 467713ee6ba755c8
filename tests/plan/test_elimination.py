"""One elimination gives the joint least-squares error of everything that went, at every width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunec.plan.elimination import DELAY, Problem, eliminate


def made_up(
    rng: np.random.Generator, n: int, channels: int, each: int, outputs: int
) -> tuple[np.ndarray, np.ndarray, Problem]:
    """Covariance, weights [outputs, n], and the problem: `each` positions per channel, the rest nobody's."""
    covariance = np.cov(rng.standard_normal((n, 3 * n + 5)) * rng.lognormal(0, 0.5, (n, 1)) + 0.1)
    mixing = np.eye(n) + 0.5 * rng.standard_normal((n, n)) / np.sqrt(n)
    covariance = mixing @ covariance @ mixing.T
    weight = rng.standard_normal((outputs, n))
    channel = np.full(n, -1)
    channel[: channels * each] = np.repeat(np.arange(channels), each)
    channel = channel[rng.permutation(n)]
    return covariance, weight, Problem(np.linalg.inv(covariance), weight.T @ weight, channel)


def joint_error(covariance: np.ndarray, weight: np.ndarray, channel: np.ndarray, gone: np.ndarray) -> float:
    """Of the least-squares weights on what is left, from the normal equations: no inverse of the whole."""
    removed = np.isin(channel, gone)
    if not removed.any():
        return 0.0
    c = covariance
    left = c[np.ix_(removed, removed)] - c[np.ix_(removed, ~removed)] @ np.linalg.solve(
        c[np.ix_(~removed, ~removed)], c[np.ix_(~removed, removed)]
    )
    return float(np.trace(weight[:, removed] @ left @ weight[:, removed].T))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), channels=st.integers(2, 12), each=st.integers(1, 4), more=st.integers(0, 5))
def test_the_rises_add_up_to_the_joint_error(seed: int, channels: int, each: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    made = [made_up(rng, channels * each + more + i, channels, each, 3 + i) for i in range(2)]
    gone, rises = eliminate([problem for _, _, problem in made], channels, channels - 1)
    assert rises.shape == (channels - 1, 2) and len(set(gone.tolist())) == channels - 1
    for count in range(1, channels):
        for i, (covariance, weight, problem) in enumerate(made):
            wanted = joint_error(covariance, weight, problem.channel, gone[:count])
            assert rises[:count, i].sum() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("each", [1, 3])
def test_delayed_updates_are_exact(each: int) -> None:
    rng = np.random.default_rng(each)
    channels = (2 * DELAY + 7) // each
    covariance, weight, problem = made_up(rng, channels * each + 4, channels, each, 5)
    gone, rises = eliminate([problem], channels, channels - 2)
    for count in (1, DELAY // each, DELAY // each + 1, channels - 2):
        wanted = joint_error(covariance, weight, problem.channel, gone[:count])
        assert rises[:count].sum() == pytest.approx(wanted, rel=1e-9)


def test_every_step_takes_the_channel_that_costs_least_then() -> None:
    rng = np.random.default_rng(3)
    covariance, weight, problem = made_up(rng, 20, 9, 2, 4)
    gone, _ = eliminate([problem], 9, 8)
    for step in range(8):
        rest = [c for c in range(9) if c not in gone[:step]]
        joint = [joint_error(covariance, weight, problem.channel, np.append(gone[:step], c)) for c in rest]
        assert rest[int(np.argmin(joint))] == gone[step]


def test_a_given_order_is_kept_and_what_stays_stays() -> None:
    rng = np.random.default_rng(4)
    covariance, weight, problem = made_up(rng, 12, 6, 2, 4)
    order = np.array([5, 0, 3])
    gone, rises = eliminate([problem], 6, 3, order)
    assert gone.tolist() == [5, 0, 3]
    assert rises.sum() == pytest.approx(joint_error(covariance, weight, problem.channel, order), rel=1e-9)
    stays = np.array([True, False, True, False, True, False])
    gone, _ = eliminate([problem], 6, 3, stays=stays)
    assert sorted(gone.tolist()) == [1, 3, 5]


def test_a_channel_that_a_problem_does_not_see_costs_it_nothing() -> None:
    rng = np.random.default_rng(5)
    _, _, problem = made_up(rng, 6, 3, 2, 4)
    _, _, other = made_up(rng, 4, 4, 1, 4)
    gone, rises = eliminate([problem, other], 4, 3, np.array([3, 1, 0]))
    assert gone.tolist() == [3, 1, 0] and rises[0, 0] == 0 and (rises[:, 1] > 0).all()
