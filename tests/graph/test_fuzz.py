"""Random graphs: sliced equals masked (see fuzz.py for the generator and for replaying a seed)."""

from __future__ import annotations

import pytest

from tests.graph.fuzz import check


@pytest.mark.parametrize("first", range(0, 300, 25))
def test_sliced_equals_masked(first: int) -> None:
    assert sum(check(seed) for seed in range(first, first + 25)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 5000, 250))
def test_sliced_equals_masked_thousands(first: int) -> None:
    assert sum(check(seed) for seed in range(first, first + 250)) > 0
