"""Whether a training helped, by samples: chance is told from gains, and samples add up to what training lowers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunec.recover.judging import CONFIDENCE, helps, is_beyond_chance, sample_losses
from prunec.recover.losses import Kind, output_loss


def losses(samples: int, seed: int) -> np.ndarray:
    """Of hard and easy samples."""
    return np.random.default_rng(seed).gamma(2, 0.05, samples)


def test_a_gain_on_every_sample_is_one_however_small() -> None:
    before = losses(20, 0)
    assert is_beyond_chance(before, 0.97 * before) and not is_beyond_chance(before, 1.03 * before)


@pytest.mark.parametrize("samples", [8, 19, 96])
def test_chance_is_seldom_taken_for_a_gain(samples: int) -> None:
    """Changes of the size of a fifth that have nothing to do with the samples."""
    rng = np.random.default_rng(samples)
    tries = 2000
    taken = sum(
        is_beyond_chance(own, own * (1 + 0.2 * rng.standard_normal(samples)))
        for own in map(losses, [samples] * tries, range(tries))
    )
    assert taken / tries < 1.3 * (1 - CONFIDENCE)


def test_one_lucky_sample_is_no_gain() -> None:
    before = np.full(20, 0.1)
    after = before.copy()
    after[0] = 0.0
    assert helps(before, after) and not is_beyond_chance(before, after)


@pytest.mark.parametrize("samples", [1, 3])
def test_very_few_show_nothing(samples: int) -> None:
    before = losses(samples, 1)
    assert helps(before, before - 1e-3) and not is_beyond_chance(before, before - 1e-3) and not helps(before, before)


def test_what_is_not_finite_is_no_gain() -> None:
    before = losses(10, 2)
    for value in (np.nan, np.inf):
        after = np.where(np.arange(10) == 3, value, 0.5 * before)
        assert not helps(before, after) and not is_beyond_chance(before, after)


@pytest.mark.parametrize("kind", ["plain", "logits", "log-probabilities"])
@pytest.mark.parametrize("shape", [(6, 10), (6, 4, 10), (1, 4, 10)])
def test_samples_have_the_mean_of_their_batch(kind: Kind, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    y, t = torch.randn(shape), torch.randn(shape)
    if kind == "log-probabilities":
        y, t = torch.log_softmax(y, -1), torch.log_softmax(t, -1)
    outputs: dict[str, Kind] = {"y": kind, "z": "plain"}
    found, wanted = {"y": y, "z": y[..., :1]}, {"y": t, "z": t[..., :1]}
    own = sample_losses(found, wanted, outputs, shape[0])
    assert own.shape == shape[:1] and own.mean() == pytest.approx(float(output_loss(found, wanted, outputs)), rel=1e-5)
    assert shape[0] == 1 or len(set(own.tolist())) == shape[0]


def test_outputs_without_samples_are_one() -> None:
    found, wanted = {"y": torch.ones(3, 4)}, {"y": torch.arange(12.0).reshape(3, 4)}
    own = sample_losses(found, wanted, {"y": "plain"}, 2)
    assert own.tolist() == [float(output_loss(found, wanted, {"y": "plain"}))]
