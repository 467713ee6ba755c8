"""The number of BLAS threads inside and after a block."""

from __future__ import annotations

import pytest

from prunec.statistics.blas_threads import _libraries, blas_threads


def counts() -> list[int]:
    return [get() for get, _ in _libraries()]


def test_threads_are_set_inside_and_restored_afterwards() -> None:
    if not _libraries():
        pytest.skip("numpy and scipy come without OpenBLAS of their own")
    before = counts()
    with blas_threads(2):
        assert counts() == [2] * len(before)
        with pytest.raises(KeyboardInterrupt):
            interrupted(len(before))
        assert counts() == [2] * len(before)
    assert counts() == before


def interrupted(libraries: int) -> None:
    with blas_threads(1):
        assert counts() == [1] * libraries
        raise KeyboardInterrupt
