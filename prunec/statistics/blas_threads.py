"""How many threads numpy's and scipy's own OpenBLAS use, for the length of a block.

OpenBLAS takes as many threads as there are cores. On a machine with other work its threads then wait for each other
(a Cholesky factorisation of 1536 unknowns took 20 times the time of one thread, measured on 2 busy cores), and the
last bits of a result depend on how many there were. Wheels on Linux and Windows carry OpenBLAS beside the package; any
other BLAS (Accelerate, MKL, the system's) is left as it is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy

NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """Use `threads` BLAS threads inside the block, whatever there were before afterwards."""
    before = [get() for get, _ in _libraries()]
    try:
        for _, set_threads in _libraries():
            set_threads(threads)
        yield
    finally:
        for count, (_, set_threads) in zip(before, _libraries(), strict=True):
            set_threads(count)


@cache
def _libraries() -> tuple[tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer], ...]:
    """(get, set) of every OpenBLAS that a wheel carries; loading one again gives the library that is in use."""
    import scipy.linalg

    found = []
    for package in (numpy, scipy):
        root = Path(str(package.__file__)).parent
        for path in sorted((*root.parent.glob(f"{root.name}.libs/*openblas*"), *root.glob(".dylibs/*openblas*"))):
            library = ctypes.CDLL(str(path))
            for name in NAMES:
                if hasattr(library, name.format("set")):
                    found.append((getattr(library, name.format("get")), getattr(library, name.format("set"))))
                    break
    return tuple(found)
