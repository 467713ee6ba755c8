"""What a model would cost after a cut, exactly, without cutting it.

Every cost is a sum of products of lengths: Σ_t a_t · Π_f n_f(alive), with n_f the number of alive positions of an axis.
The axes are collected once, so one evaluation is one gather, one segmented sum and one product over small arrays. The
result equals `graph.cost` on what `passes.slice_channels` returns.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis
from prunec.graph.cost import OUTPUT, PARAMETER_TYPES, mac_products, operand
from prunec.graph.shapes import dims, is_constant

Ids = np.ndarray | None
Reader = tuple[tuple[Ids, ...], frozenset[int]]
"""What a use takes of a tensor's axes, and the experts that it is there for (`Analysis.owners`)."""
_NOBODY: frozenset[int] = frozenset()
Term = tuple[int, tuple[int, ...]]
"""A constant factor, and the numbers of the axes whose lengths multiply it."""


@dataclass(frozen=True)
class Cost:
    """params: floating-point values; macs: of one run; weights: parameters of the prunable layers alone.

    bytes: of the parameters as they are stored.
    """

    params: int
    macs: int
    weights: int
    bytes: int = 0


class CostModel:
    """Costs of one canonical model as a function of the alive classes. `prunable`: names of the prunable weights."""

    def __init__(self, model: ir.Model, analysis: Analysis, prunable: Collection[str] = ()) -> None:
        self._analysis = analysis
        self._axes = _Axes()
        per_node = [list(self._node_terms(node)) for node in model.graph]
        self._macs = self._table([term for terms in per_node for term in terms])
        self._owner = np.repeat(np.arange(len(per_node)), [len(terms) for terms in per_node])
        self._elements = self._table([self._output_term(node) for node in model.graph])
        single: dict[bool, list[Term]] = {False: [], True: []}
        widths: dict[bool, list[float]] = {False: [], True: []}
        self._fixed = {False: 0, True: 0}
        self._fixed_bytes = 0.0
        self._shared: list[tuple[bool, bool, int, list[Reader], float]] = []
        for name, value in model.graph.initializers.items():
            if value.const_value is not None and value.const_value.dtype in PARAMETER_TYPES:
                self._initializer(value, name in prunable, single, widths)
        self._params = {flag: self._table(terms) for flag, terms in single.items()}
        self._widths = {flag: np.array(found, np.float64) for flag, found in widths.items()}
        self._axes.freeze()

    def evaluate(self, alive: np.ndarray) -> Cost:
        """Cost of the model with only the classes `alive` (bool per class id) left."""
        counts = self._axes.counts(alive)
        left, stored = dict(self._fixed), self._fixed_bytes
        for flag, table in self._params.items():
            values = _products(table, counts)
            left[flag] += int(values.sum())
            stored += float(values @ self._widths[flag])
        for prunable, untouched, size, readers, width in self._shared:
            values_left = _shared_size(untouched, size, readers, alive)
            left[prunable] += values_left
            stored += values_left * width
        return Cost(left[False] + left[True], _total(self._macs, counts), left[True], math.ceil(stored))

    def layer_macs(self, alive: np.ndarray, multiple: int = 1) -> np.ndarray:
        """MACs of each node, float64 [nodes], as if every axis that may be cut were padded to a multiple."""
        counts = self._axes.counts(alive)
        counts[1:] = -(-counts[1:] // multiple) * multiple
        return np.bincount(self._owner, _products(self._macs, counts), len(self._elements[0])).astype(np.float64)

    def layer_elements(self, alive: np.ndarray) -> np.ndarray:
        """Values in the first output of each node, float64 [nodes]."""
        return _products(self._elements, self._axes.counts(alive)).astype(np.float64)

    # -- terms --------------------------------------------------------------------------------------------------
    def _initializer(
        self, value: ir.Value, prunable: bool, single: dict[bool, list[Term]], widths: dict[bool, list[float]]
    ) -> None:
        """One product if all uses are cut alike; a list of variants if they may not be (see `slice_channels`)."""
        shape = [int(d) for d in dims(value) or () if isinstance(d, int)]
        assert value.const_value is not None
        width = value.const_value.nbytes / max(math.prod(shape), 1)
        nowhere: tuple[Ids, ...] = (None,) * len(shape)
        places = [(node.name or "", index) for node, index in value.uses()]
        readers: list[Reader] = [
            (self._analysis.use_axes.get(place, nowhere), self._analysis.owners.get(place[0], _NOBODY))
            for place in places
        ]
        untouched = value.is_graph_output()
        if not any(owner or any(ids is not None for ids in axes) for axes, owner in readers):
            self._fixed[prunable] += math.prod(shape)
            self._fixed_bytes += value.const_value.nbytes
        elif not untouched and all(_same(reader, readers[0]) for reader in readers[1:]):
            single[prunable].append(self._term(shape, *readers[0]))
            widths[prunable].append(width)
        else:
            self._shared.append((prunable, untouched, math.prod(shape), readers, width))

    def _node_terms(self, node: ir.Node) -> Iterator[Term]:
        """The products of `graph.cost.mac_products`, over lengths that may still be cut; none once nobody needs it."""
        owner = self._analysis.owners.get(node.name or "", _NOBODY)
        for product in mac_products(node):
            axes = [self._of(node, index)[axis] for index, axis in product]
            yield self._term([length for length, _ in axes], [ids for _, ids in axes], owner)

    def _output_term(self, node: ir.Node) -> Term:
        owner = self._analysis.owners.get(node.name or "", _NOBODY)
        axes = self._of(node, OUTPUT)
        return self._term([length for length, _ in axes], [ids for _, ids in axes], owner)

    def _of(self, node: ir.Node, index: int) -> list[tuple[int, Ids]]:
        """(length, ids) per axis of an operand; a length that is not static counts as 1."""
        value = operand(node, index)
        shape = dims(value) or ()
        assert value is not None
        place = (node.name or "", index)
        of_use = self._analysis.use_axes.get(place) if index != OUTPUT and is_constant(value) else None
        axes = self._analysis.value_axes.get(value.name or "") if of_use is None else of_use
        lengths = [d if isinstance(d, int) else 1 for d in shape]
        return list(zip(lengths, axes or (None,) * len(shape), strict=True))

    def _term(self, shape: Sequence[int], axes: Sequence[Ids], owner: frozenset[int]) -> Term:
        pairs = list(zip(shape, axes, strict=True))
        needs = [np.array([channel], np.int64) for channel in sorted(owner)]  # 0 or 1 of 1 alive
        lengths = [ids for _, ids in pairs if ids is not None]
        return math.prod(n for n, ids in pairs if ids is None), tuple(self._axes.add(ids) for ids in lengths + needs)

    def _table(self, terms: list[Term]) -> tuple[np.ndarray, np.ndarray]:
        """Constants [T] and axis numbers [T, F]; number 0 stands for a length of 1."""
        width = max((len(numbers) for _, numbers in terms), default=0)
        rows = [[*numbers, *([0] * (width - len(numbers)))] for _, numbers in terms]
        return np.array([a for a, _ in terms], np.int64), np.array(rows, np.int64).reshape(len(terms), width)


class _Axes:
    """Distinct axes, numbered from 1, and their alive lengths in one segmented sum."""

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self._arrays: list[np.ndarray] = []

    def add(self, ids: np.ndarray) -> int:
        number = self._number.setdefault(ids.tobytes(), len(self._arrays) + 1)
        if number > len(self._arrays):
            self._arrays.append(ids)
        return number

    def freeze(self) -> None:
        self._ids = np.concatenate(self._arrays) if self._arrays else np.zeros(0, np.int64)
        lengths = [len(a) for a in self._arrays]
        self._starts = np.cumsum([0, *lengths])[:-1]

    def counts(self, alive: np.ndarray) -> np.ndarray:
        """int64 [axes + 1]; entry 0 is 1."""
        if not self._arrays:
            return np.ones(1, np.int64)
        return np.concatenate([[1], np.add.reduceat(alive[self._ids].astype(np.int64), self._starts)])


def _total(table: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> int:
    return int(_products(table, counts).sum())


def _products(table: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> np.ndarray:
    constants, numbers = table
    return np.asarray(constants * counts[numbers].prod(axis=1))


def _same(a: Reader, b: Reader) -> bool:
    pairs = zip(a[0], b[0], strict=True)
    return a[1] == b[1] and all(x is y if x is None or y is None else np.array_equal(x, y) for x, y in pairs)


def _shared_size(untouched: bool, size: int, readers: list[Reader], alive: np.ndarray) -> int:
    """Uses that keep the same positions share one tensor; the whole tensor stays if some use keeps all of it."""
    sizes: dict[bytes, int] = {}
    for axes, owner in readers:
        if not alive[list(owner)].all():
            continue
        masks = [(a, alive[ids]) for a, ids in enumerate(axes) if ids is not None and not alive[ids].all()]
        key = b"".join(bytes([a]) + np.packbits(mask).tobytes() for a, mask in masks)
        left = size
        for _, mask in masks:
            left = left // len(mask) * int(mask.sum())
        sizes[key] = left
    if untouched:
        sizes[b""] = size
    return sum(sizes.values())
