"""What the processor can do at most, measured: multiply-adds that touch no memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import Callable
from prunec.backends.cpu.kernels.peak import Peak

_RUNS = 15
_ROUNDS = 400_000
"""A millisecond or more: all threads are at it for most of the time."""


def peak_gflops(isa: Isa, threads: int) -> float:
    """Multiply-adds in registers on so many threads at once, the best of several runs of each."""
    kernel = Peak(_ROUNDS)
    function = Callable(kernel, isa)

    def best(_: int) -> float:
        arguments = function.prepare(np.array([0.999, 1e-3], np.float32), np.zeros(1, np.float32))
        taken = float("inf")
        for _ in range(_RUNS):
            start = time.thread_time()  # of this thread alone: waiting for a busy processor does not count
            function.run(arguments)
            taken = min(taken, time.thread_time() - start)
        return taken

    with ThreadPoolExecutor(threads) as pool:
        return sum(kernel.flops(isa) / taken / 1e9 for taken in pool.map(best, range(threads)))
