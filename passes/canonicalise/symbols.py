"""Dimensions that are not known: symbols with the little algebra that shapes need.

A dimension is an `int` or a `str`, a symbol; equal symbols are equal numbers. Products are kept as
coefficient × sorted factors, so (b·12·197·64) / (197·768) = b; any other expression of symbols becomes a new symbol,
the same one for the same expression.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

Dim = int | str


class Symbols:
    """Makes and remembers symbols; deterministic: the n-th new symbol is always `_n`."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._count = 0
        self._products: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._known: dict[tuple[object, ...], str] = {}
        self._signed: set[str] = set()
        self._fractional: set[str] = set()

    def fresh(self) -> str:
        while True:
            self._count += 1
            name = f"_{self._count}"
            if name not in self._taken:
                return name

    def product(self, dims: Sequence[Dim]) -> Dim:
        coefficient, factors = 1, Counter[str]()
        for dim in dims:
            times, names = self._parts(dim)
            coefficient *= times
            factors.update(names)
        names = tuple(sorted(factors.elements()))
        if coefficient == 0 or not names:
            return coefficient
        if coefficient == 1 and len(names) == 1:
            return names[0]
        symbol = self._intern(("product", coefficient, names), dims)
        self._products[symbol] = (coefficient, names)
        return symbol

    def quotient(self, whole: Dim, part: Dim) -> Dim | None:
        """whole / part when that is exact for every value of the symbols, else None."""
        coefficient, factors = self._parts(whole)
        divisor, names = self._parts(part)
        left = Counter(factors)
        left.subtract(names)
        if divisor == 0 or coefficient % divisor or min(left.values(), default=0) < 0:
            return None
        return self.product([coefficient // divisor, *left.elements()])

    def derived(self, operator: str, *dims: object, signed: bool = True, fractional: bool = False) -> str:
        """The symbol for any other expression."""
        symbol = self._intern((operator, *dims), dims)
        if signed:
            self._signed.add(symbol)
        if fractional:
            self._fractional.add(symbol)
        return symbol

    def is_non_negative(self, dim: object) -> bool:
        return dim not in self._signed if isinstance(dim, str) else bool(dim >= 0)  # type: ignore[operator]

    def is_integral(self, dim: object) -> bool:
        return dim not in self._fractional if isinstance(dim, str) else float(dim).is_integer()  # type: ignore[arg-type]

    def _parts(self, dim: Dim) -> tuple[int, tuple[str, ...]]:
        if isinstance(dim, int):
            return dim, ()
        return self._products.get(dim, (1, (dim,)))

    def _intern(self, key: tuple[object, ...], dims: Sequence[object]) -> str:
        symbol = self._known.get(key)
        if symbol is None:
            symbol = self._known[key] = self.fresh()
            if not all(self.is_non_negative(dim) for dim in dims):
                self._signed.add(symbol)
            if not all(self.is_integral(dim) for dim in dims):
                self._fractional.add(symbol)
        return symbol
