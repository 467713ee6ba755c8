"""The fastest candidate of every product of a model, measured on this machine and remembered.

A first lowering collects the products, the candidates of several are compiled in one module and run in turn, and the
second lowering looks the winners up. A product is known by its shape, its density in tenths, the processor, the
instructions, the threads and the source of the kernels. Winners are kept as soon as they are known, so a compile that
is ended goes on there the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable as Function
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import Callable, callables
from prunec.backends.cpu.kernels.row_major import Order
from prunec.backends.cpu.lower.candidates import Built, Choice, Choose, Product, build, by_rule, candidates
from prunec.backends.cpu.parts import split_model
from prunec.backends.cpu.provenance import processor, sources
from prunec.cache import Arrays

Progress = Function[[str, int, int], None]
_ROUNDS = {"quick": (30, 0.1), "full": (100, 1.0)}
"""Runs of every candidate, or seconds for all of a product, whichever is reached first."""
_FEWEST = 5
"""Runs in any case."""
_BETTER = 0.97
"""What another candidate must need of the rule's time to be taken instead."""
_LEAST_FLOPS = 1e6
"""Products with less work are left to the rule."""
_MODULE = 16
"""Kernels that are compiled together."""
_FAMILIES = ("row_major", "panel")
_ORDERS: tuple[Order, ...] = ("rows", "tiles")


class Store(Protocol):
    """What `prunec.cache.Cache` offers."""

    def read(self, key: str) -> tuple[Arrays, str] | None: ...

    def write(self, key: str, arrays: Mapping[str, np.ndarray]) -> str | None: ...


@dataclass(frozen=True)
class Tuning:
    """How thoroughly to choose, for how many threads, and where winners are remembered."""

    isa: Isa
    level: str
    threads: int
    store: Store | None
    progress: Progress

    def chooser(self, ready: ir.Model) -> Choose:
        """How to choose the kernels of a model that `prepare` made ready. Measures what is not known yet."""
        if self.level == "none":
            return by_rule
        products: dict[str, Product] = {}

        def collect(product: Product) -> Choice:
            products.setdefault(self._key(product), product)
            return by_rule(product)

        split_model(ready, self.isa, collect)
        chosen: dict[str, Choice] = {}
        for key, product in products.items():
            found = None if self.store is None else self.store.read(key)
            if found is not None:
                chosen[key] = _decoded(found[0]["choice"])
            elif _flops(product) < _LEAST_FLOPS:
                chosen[key] = by_rule(product)
        unknown = {key: product for key, product in products.items() if key not in chosen}
        for key, choice in self._measured(unknown):
            chosen[key] = choice
            if self.store is not None:
                self.store.write(key, {"choice": _encoded(choice)})
        return lambda product: chosen.get(self._key(product)) or by_rule(product)

    def _key(self, product: Product) -> str:
        return identity(product, self.threads, self.level)

    def _measured(self, products: Mapping[str, Product]) -> Iterator[tuple[str, Choice]]:
        """The winner of every product, as soon as it is known."""
        done = 0
        for some in _modules(products, thorough=self.level == "full"):
            self.progress("choosing kernels", done, len(products))
            kernels = [built.kernel for built_of in some.values() for built in built_of.values()]
            functions = callables(kernels, self.isa, threads=self.threads)
            for key, built_of in some.items():
                yield key, _fastest(built_of, functions, *_ROUNDS[self.level], self.threads)
                done += 1
                self.progress("choosing kernels", done, len(products))


def identity(product: Product, threads: int, level: str) -> str:
    """What a measurement depends on; the weights themselves do not matter."""
    densities = [round(10 * product.density(rows)) for rows in (4, 8, product.lanes)]
    shape = (
        product.grid,
        product.matrix.shape,
        product.window,
        product.x,
        product.y,
        product.epilogue,
        product.operands,
    )
    code = sources("lower/candidates.py", "lower/tiles.py")
    return repr(("tuned", code, processor(), product.isa.name, threads, level, shape, densities))


def _modules(products: Mapping[str, Product], *, thorough: bool) -> Iterator[dict[str, dict[Choice, Built]]]:
    """Products with their candidates, in groups that are compiled together."""
    some: dict[str, dict[Choice, Built]] = {}
    for key, product in products.items():
        some[key] = {choice: build(product, choice) for choice in candidates(product, thorough=thorough)}
        if sum(map(len, some.values())) >= _MODULE:
            yield some
            some = {}
    if some:
        yield some


def _fastest(
    built_of: Mapping[Choice, Built], functions: Mapping[str, Callable], most: int, budget: float, threads: int
) -> Choice:
    """Runs all candidates in turn; the best time of each counts. The first one is the rule's.

    A single time that was not disturbed must not win for a kernel: it has to be ahead in half of the rounds, too.
    """
    runs = [
        (choice, functions[b.kernel.symbol()], arguments(b, functions[b.kernel.symbol()]))
        for choice, b in built_of.items()
    ]
    times: dict[Choice, list[float]] = {choice: [] for choice in built_of}
    start, rounds = time.perf_counter(), 0
    while rounds < _FEWEST or (rounds < most and time.perf_counter() - start < budget):
        for choice, function, given in runs:
            times[choice].append(seconds(partial(function.run, given), threads))
        rounds += 1
    first = next(iter(times))
    winner = min(times, key=lambda choice: min(times[choice]))
    is_better = min(times[winner]) < _BETTER * min(times[first])
    return winner if is_better and np.median(np.divide(times[winner], times[first])) < 1 else first


def arguments(built: Built, function: Callable) -> list[Any]:
    """What to run a kernel on: its own weights, random numbers for the rest."""
    rng = np.random.default_rng(0)
    weights = dict(zip(("values", "index", "pointer"), built.weights, strict=True))
    arrays = [
        weights[a.name] if a.name in weights else rng.random(a.size, np.float32) for a in built.kernel.arguments()
    ]
    return function.prepare(*(array.astype(a.dtype) for array, a in zip(arrays, built.kernel.arguments(), strict=True)))


def seconds(run: Function[[], None], threads: int) -> float:
    """Of this thread's processor for one thread, so that other processes count less; else of the clock."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def _flops(product: Product) -> float:
    n, h, w = product.grid
    return 2.0 * n * h * w * int(np.count_nonzero(product.matrix))


def _encoded(choice: Choice) -> np.ndarray:
    family, order = _FAMILIES.index(choice.family), _ORDERS.index(choice.order)
    return np.array([family, choice.rows, *choice.tile, choice.vectors, choice.passes, order], dtype=np.int64)


def _decoded(array: np.ndarray) -> Choice:
    family, rows, lines, columns, vectors, passes, order = (int(n) for n in array)
    return Choice("row_major" if not family else "panel", rows, (lines, columns), vectors, passes, _ORDERS[order])
