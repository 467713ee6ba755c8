"""Streaming moments against numpy on everything at once."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.statistics.moments import Moments


def rows(seed: int, groups: int, count: int, n: int, mean: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((groups, count, n)) @ rng.standard_normal((groups, n, n))
    return mixed + mean


@pytest.mark.parametrize("cuts", [[], [1], [3, 500, 501], [2048, 4096]])
def test_any_split_into_batches_gives_numpys_moments(cuts: list[int]) -> None:
    z, t = rows(0, 2, 5000, 6, mean=3.0), rows(1, 2, 5000, 3)
    moments = Moments(2, 6, 3)
    for part_z, part_t in zip(np.split(z, cuts, axis=1), np.split(t, cuts, axis=1), strict=True):
        moments.add(part_z, part_t)
    for group in range(2):
        joint = np.cov(np.concatenate([z[group], t[group]], axis=1), rowvar=False, bias=True)
        np.testing.assert_allclose(moments.covariance()[group], joint[:6, :6], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(moments.cross_covariance()[group], joint[6:, :6], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(moments.target[group] / 5000, np.diagonal(joint)[6:], rtol=1e-10)
    np.testing.assert_allclose(moments.mean, z.mean(axis=1), rtol=1e-12)
    second, cross = moments.uncentred()
    np.testing.assert_allclose(second, z.transpose(0, 2, 1) @ z / 5000, rtol=1e-10)
    np.testing.assert_allclose(cross, t.transpose(0, 2, 1) @ z / 5000, rtol=1e-9, atol=1e-9)


def test_float32_products_cost_a_millionth_of_the_diagonal() -> None:
    """Also where the mean is a thousand times the spread: there Σz² − nμ² in float32 would have nothing left."""
    z = rows(2, 1, 20000, 32, mean=1000.0).astype(np.float32)
    moments = Moments(1, 32)
    moments.add(z)
    exact = np.cov(z[0].astype(np.float64), rowvar=False, bias=True)
    scale = np.sqrt(np.outer(np.diagonal(exact), np.diagonal(exact)))
    assert np.abs((moments.covariance()[0] - exact) / scale).max() < 1e-6


def test_means_only_keeps_no_squares() -> None:
    z, t = rows(3, 1, 100, 5), rows(4, 1, 100, 2)
    moments = Moments(1, 5, 2, means_only=True)
    moments.add(z, t)
    assert moments.scatter.size == moments.cross.size == 0
    np.testing.assert_allclose(moments.target_mean, t.mean(axis=1))


def test_nan_is_seen() -> None:
    moments = Moments(1, 2)
    moments.add(np.array([[[1.0, np.nan]]]))
    assert not moments.is_finite()
