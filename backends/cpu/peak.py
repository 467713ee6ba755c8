"""What the processor can do at most, measured: multiply-adds that touch no memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import Callable
from prunec.backends.cpu.kernels.peak import DotPeak, Peak

_RUNS = 15
_ROUNDS = 400_000
"""A millisecond or more: all threads are at it for most of the time."""


class PeakMeter:
    """Multiply-adds in registers on so many threads at once, again and again: what else a machine runs changes it.

    `sharing`: as `Peak` has it. `is_int8`: products of bytes that are added in 32 bits instead of float32.
    """

    def __init__(self, isa: Isa, threads: int, sharing: int = 0, *, is_int8: bool = False) -> None:
        kernel = DotPeak(_ROUNDS) if is_int8 else Peak(_ROUNDS, sharing)
        self._threads = threads
        self._function, self._flops = Callable(kernel, isa), kernel.flops(isa)

    def gflops(self, runs: int = 1) -> float:
        """GFLOP/s of all threads: the best of so many runs of each."""

        def best(_: int) -> float:
            given = [np.ones(1, a.dtype) for a in self._function.kernel.arguments()]
            if given[0].dtype == np.float32:
                given[0] = np.array([0.999, 1e-3], np.float32)
            arguments = self._function.prepare(*given)
            taken = float("inf")
            for _ in range(runs):
                start = time.thread_time()  # of this thread alone: waiting for a busy processor does not count
                self._function.run(arguments)
                taken = min(taken, time.thread_time() - start)
            return taken

        if self._threads == 1:
            return self._flops / best(0) / 1e9
        with ThreadPoolExecutor(self._threads) as pool:
            return sum(self._flops / taken / 1e9 for taken in pool.map(best, range(self._threads)))


def peak_gflops(isa: Isa, threads: int) -> float:
    """The best of several runs on every thread."""
    return PeakMeter(isa, threads).gflops(_RUNS)
