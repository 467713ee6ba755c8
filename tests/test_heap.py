"""Freed memory goes back to the system, where the C library can do that."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from prunec import heap
from prunec.api.progress import tidying


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not sys.platform.startswith("linux") or heap._trim() is None, reason="needs glibc")
def test_free_blocks_below_others_are_given_back() -> None:
    blocks = [np.ones(1 << 13) for _ in range(1600)]  # 64 KiB each: from the heap, 100 MiB of it
    kept = blocks[::100]
    full = resident()
    del blocks
    heap.release_free_memory()
    assert resident() < full - 60 * 2**20
    assert all(block.all() for block in kept)


@pytest.mark.skipif(not sys.platform.startswith("linux") or heap._trim() is None, reason="needs glibc")
def test_large_blocks_below_others_go_at_once() -> None:
    """In processes of their own: the heap of this one may have free room for them."""
    found = []
    for apart in (False, True):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found.append(pool.submit(given_back, apart).result())
    assert found[0] < 20 * 2**20 and found[1] > 180 * 2**20


def given_back(apart: bool) -> int:
    """How much of 195 MiB goes when they are freed and a block above them stays."""
    del_me = np.ones(3 << 20)  # 24 MiB: once it is freed, glibc takes blocks of that size from its heap
    del del_me
    with heap.large_blocks_apart() if apart else nullcontext():
        blocks = [np.ones(5 << 17) for _ in range(40)]  # 5 MiB each
        full = resident()
        kept = blocks[-1]
        del blocks
        left = resident()
        assert kept.all()
    return full - left


def test_every_new_step_of_a_stage_gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    released, told = [], []
    monkeypatch.setattr("prunec.api.progress.release_free_memory", lambda: released.append(True))
    progress = tidying(lambda what, done, of: told.append((what, done, of)))
    for step in [("statistics", 0, 2), ("statistics", 1, 2), ("planning", 0, 0), ("compensating: a", 0, 1)]:
        progress(*step)
    assert len(told) == 4 and len(released) == 3


@pytest.mark.skipif(not sys.platform.startswith("linux") or heap._trim() is None, reason="needs glibc")
def test_blocks_of_a_loop_stay_until_it_ends() -> None:
    """Pages that the kernel hands out for 30 rounds of 20 MiB, and room that is left."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        apart, together, again, left = pool.submit(pages_of_a_loop).result()
    assert min(apart, again) > 10 * together and left < 10 * 2**20


def pages_of_a_loop() -> tuple[int, int, int, int]:
    def rounds() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(30):
            blocks = [np.ones(5 << 17) for _ in range(4)]
            del blocks
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    before = resident()
    with heap.large_blocks_apart():
        apart = rounds()
        with heap.blocks_stay():
            together = rounds()
        again = rounds()
    return apart, together, again, resident() - before
