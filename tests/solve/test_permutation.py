"""The search for an order: it finds planted ones, never loses, and is a function of its arguments."""

from __future__ import annotations

import numpy as np
import pytest

from prunec.passes.solve import order_inputs, order_outputs
from prunec.passes.solve.permutation import Side, search
from prunec.patterns import Layout, Pattern, parse


def kept(saliency: np.ndarray, pattern: Pattern, level: float, positions: int = 1) -> float:
    layout = Layout(positions, saliency.shape[1] // positions)
    return float(saliency[pattern.project(saliency, layout, level)].sum())


def test_strong_columns_that_sit_together_are_dealt_out() -> None:
    """Half of the columns hold everything, four side by side: 2:4 loses half of it in order, nothing when dealt out."""
    saliency = np.random.default_rng(0).random((16, 32)) * np.tile(np.repeat([1.0, 1e-6], 4), 4)
    pattern = parse("2:4")
    order = order_inputs(saliency, Layout(1, 32), pattern, 0.5)
    assert order is not None and sorted(order.tolist()) == list(range(32))
    assert kept(saliency[:, order], pattern, 0.5) > 0.999 * saliency.sum() > kept(saliency, pattern, 0.5) * 1.2


def test_asp_reference() -> None:
    """NVIDIA ASP keeps 35.5 % of what is left to gain on a uniform 64×128 matrix, in a minute."""
    matrix, pattern, layout = np.random.default_rng(0).random((64, 128)), parse("2:4"), Layout(1, 128)
    order = order_inputs(matrix, layout, pattern, 0.5)
    ideal = np.sort(matrix, axis=None)[matrix.size // 2 :].sum()
    before, after = kept(matrix, pattern, 0.5), kept(matrix[:, order], pattern, 0.5)
    assert (after - before) / (ideal - before) > 0.42


@pytest.mark.parametrize("name", ["2:4", "1:4", "4:8"])
@pytest.mark.parametrize("seed", range(5))
def test_an_order_never_keeps_less(name: str, seed: int) -> None:
    random, pattern = np.random.default_rng(seed), parse(name)
    saliency = random.lognormal(size=(3 * 8, 24)) * random.lognormal(size=24)
    order = order_inputs(saliency.reshape(8, -1), Layout(3, 24), pattern, pattern.fixed_level or 0.5, seed)
    assert order is not None
    both = (saliency, saliency[:, order])
    before, after = (kept(s.reshape(8, -1), pattern, pattern.fixed_level or 0.5, 3) for s in both)
    assert after >= before


def test_rows_and_columns_of_blocks() -> None:
    random = np.random.default_rng(0)
    saliency = random.lognormal(size=(32, 64)) * random.lognormal(sigma=2, size=64) * random.lognormal(size=(32, 1))
    wide, tall = parse("block:1x4"), parse("block:4x1")
    columns, rows = order_inputs(saliency, Layout(1, 64), wide, 0.7), order_outputs(saliency, tall, 0.7)
    assert kept(saliency[:, columns], wide, 0.7) > 1.02 * kept(saliency, wide, 0.7)
    assert kept(saliency[rows], tall, 0.7) > 1.02 * kept(saliency, tall, 0.7)


@pytest.mark.parametrize("name", ["unstructured", "kernel", "vnm:4:2:8"])
def test_patterns_that_have_no_use_for_an_order(name: str) -> None:
    saliency = np.ones((8, 16))
    assert order_inputs(saliency, Layout(1, 16), parse(name), 0.5) is None
    assert order_outputs(saliency, parse(name), 0.5) is None


def test_the_same_seed_gives_the_same_order() -> None:
    saliency = np.random.default_rng(3).random((300, 320))  # more lanes than take part, more groups than one table
    side = Side(saliency, 4, 2)
    first, again, other = (search([side], seed).tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_several_layers_share_one_order() -> None:
    """Each layer alone has an order without any loss; the one that is found is the best for both."""
    random = np.random.default_rng(0)
    a, b = random.random((32, 64)), random.random((32, 64))
    one, both = search([Side(a, 4, 2)]), search([Side(a, 4, 2), Side(b, 4, 2)])
    pattern = parse("2:4")

    def total(order: np.ndarray) -> float:
        return kept(a[:, order], pattern, 0.5) + kept(b[:, order], pattern, 0.5)

    assert total(both) > total(one) > 0 and total(both) > total(np.arange(64))


def test_columns_that_do_not_fill_groups_stay() -> None:
    assert search([Side(np.ones((4, 6)), 4, 2)]).tolist() == list(range(6))
