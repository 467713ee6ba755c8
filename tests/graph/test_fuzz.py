"""Random graphs: sliced equals masked (see fuzz.py for the generator and for replaying a seed)."""

from __future__ import annotations

import pytest

from tests.graph.fuzz import GROWERS, check


@pytest.mark.parametrize(
    ("kind", "first"),
    [(kind, first) for kind in GROWERS for first in range(0, 200 if kind in ("image", "sequence") else 25, 25)],
)
def test_sliced_equals_masked(kind: str, first: int) -> None:
    assert sum(check(seed, kind) for seed in range(first, first + 25)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", GROWERS)
@pytest.mark.parametrize("first", range(1000, 4000, 250))
def test_sliced_equals_masked_thousands(first: int, kind: str) -> None:
    assert sum(check(seed, kind) for seed in range(first, first + 250)) > 0
