from __future__ import annotations

import numpy as np
import pytest

from prunec.diagnostics import PrunecError
from prunec.passes.solve import solve
from prunec.passes.solve.armor import armor
from prunec.passes.solve.masks import wanda_mask
from prunec.passes.solve.quadratic import quadratic
from prunec.passes.solve.udfc import absorb, data_free_problem, merge_weights, white_hessian
from prunec.patterns import Layout, masked, parse
from tests.solve.problems import layer


def test_armor_never_climbs_and_beats_the_mask_alone() -> None:
    q, pattern = quadratic(layer(outputs=32, width=64, alpha=0.5), 0.01), parse("2:4")
    found = armor(q, pattern, 0.5, block=16)
    assert all(b <= a * (1 + 1e-9) for a, b in zip(found.loss, found.loss[1:], strict=False))
    assert found.loss[-1] < 0.7 * found.loss[0]
    assert pattern.check(found.core, q.layout).passed and found.overhead == pytest.approx(16 * (1 / 32 + 1 / 64))
    plain = q.target / q.scale
    weights = q.diagonal * q.scale**2
    whole = (np.square(plain) * weights).sum()
    assert (np.square(found.product() - plain) * weights).sum() / whole == pytest.approx(found.loss[-1], rel=1e-9)
    mask = wanda_mask(q, pattern, 0.5, "layer")
    assert (np.square(masked(plain, mask) - plain) * weights).sum() / whole == pytest.approx(found.loss[0], rel=1e-9)


def test_armor_wants_blocks_that_divide() -> None:
    with pytest.raises(PrunecError, match="PC225"):
        armor(quadratic(layer(), 0.01), parse("2:4"), 0.5, block=24)


@pytest.mark.parametrize("relu", [False, True])
def test_a_copied_channel_is_taken_over_exactly(relu: bool) -> None:
    """Channels 6 and 7 are 2× channel 0 and channel 1; their consumer does not miss them."""
    random = np.random.default_rng(0)
    producer, bias = random.standard_normal((8, 12)), random.standard_normal(8)
    producer[6], bias[6] = 2 * producer[0], 2 * bias[0]
    producer[7], bias[7] = producer[1], bias[1]
    weight, keep = random.standard_normal((5, 3 * 8)), np.arange(8) < 6
    merged = merge_weights(producer, bias, keep, relu=relu, alpha1=1e-9)
    smaller = absorb(weight, keep, merged)
    u = random.standard_normal((50, 12))
    z = u @ producer.T + bias
    z = np.maximum(z, 0) if relu else z
    patches = np.tile(z, (1, 3))
    np.testing.assert_allclose(np.tile(z[:, keep], (1, 3)) @ smaller.T, patches @ weight.T, rtol=1e-4, atol=1e-4)
    assert (merged >= 0).all() or not relu


@pytest.mark.parametrize("relu", [False, True])
def test_the_white_hessian_is_that_of_samples(relu: bool) -> None:
    random = np.random.default_rng(0)
    producer = random.standard_normal((6, 10))
    z = random.standard_normal((200_000, 10)) @ producer.T
    z = np.maximum(z, 0) if relu else z
    found = white_hessian(producer, np.zeros(6), relu=relu)
    np.testing.assert_allclose(found, z.T @ z / len(z), atol=0.02 * np.diagonal(found).max())


def test_without_data_solving_beats_the_mask_on_data() -> None:
    random = np.random.default_rng(0)
    producer, weight = random.standard_normal((32, 12)), random.standard_normal((16, 32))
    problem = data_free_problem(weight, producer, np.zeros(32), relu=True)
    pattern = parse("2:4")
    found = solve(problem, pattern, 0.5)
    z = np.maximum(random.standard_normal((5000, 12)) @ producer.T, 0)
    errors = [np.square(z @ (weight - w).T).sum() for w in (found.weight, found.plain)]
    assert pattern.check(found.weight, Layout(1, 32)).passed and errors[0] < 0.7 * errors[1]
