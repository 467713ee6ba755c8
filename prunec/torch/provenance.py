"""Which element of which parameter every weight of the canonical model is.

The exporter and canonicalisation slice, transpose and join parameters on their way to the operators (the gates of an
LSTM, the transposed weight of a Linear). Instead of following each step, the whole way is run again with every
parameter replaced by the numbers of its elements, digit by digit in a base that its type holds exactly; what comes out
says where each value is from. A weight counts as traced only if the parameters, read at these places, give its very
bits: whatever does arithmetic on parameters on the way (weight normalisation, say) is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.graph.cost import FLOAT_TYPES
from prunec.passes.canonicalise import canonicalise

_DIGIT_BITS = {ir.DataType.DOUBLE: 50, ir.DataType.FLOAT: 23, ir.DataType.FLOAT16: 11, ir.DataType.BFLOAT16: 8}
"""Bits of the integers that a type holds exactly."""


@dataclass(frozen=True)
class Provenance:
    """`model` is canonical with nothing folded; `origins` has, per traced initializer, element numbers of its shape.

    `constants` are the initializers that no parameter has a part in.
    Element numbers count through all parameters in the order of `spans`: name → (first number, shape).
    """

    model: ir.Model
    origins: dict[str, np.ndarray]
    spans: dict[str, tuple[int, tuple[int, ...]]]
    constants: frozenset[str]

    @property
    def size(self) -> int:
        """Elements of all parameters."""
        return sum(int(np.prod(shape, dtype=np.int64)) for _, shape in self.spans.values())

    def parameters_in(self, origins: Iterable[np.ndarray]) -> list[str]:
        """The parameters that these elements are of, each once, in the order of `spans`."""
        names, starts = list(self.spans), [start for start, _ in self.spans.values()]
        found: set[int] = set()
        for origin in origins:
            found.update(np.unique(np.searchsorted(starts, origin.ravel(), side="right") - 1).tolist())
        return [names[i] for i in sorted(found)]


def trace_weights(raw: ir.Model) -> Provenance:
    """Follow the float initializers of an exported model into its canonical form."""
    canonical = canonicalise(raw, fold=False)
    parameters = {name: value for name, value in raw.graph.initializers.items() if _is_float(value)}
    spans: dict[str, tuple[int, tuple[int, ...]]] = {}
    total = 0
    for name, value in parameters.items():
        shape = tuple(value.const_value.shape.numpy()) if value.const_value is not None else ()
        spans[name] = (total, shape)
        total += int(np.prod(shape, dtype=np.int64))
    origins: dict[str, np.ndarray] = {}
    plain = {name: _float_array(value) for name, value in canonical.graph.initializers.items() if _is_float(value)}
    constants = set(plain)
    bits = min((_DIGIT_BITS[value.const_value.dtype] for value in parameters.values() if value.const_value), default=23)
    for shift in itertools.count(0, bits):
        if total >> shift == 0:
            break
        coded = dict(_run_coded(raw, spans, shift, bits))
        constants = {name for name in constants if name in coded and np.array_equal(coded[name], plain[name])}
        for name, code in coded.items():
            if np.isfinite(code).all() and (np.abs(code) < 1 << 52).all():
                number = code.astype(np.int64) << shift
                origins[name] = origins[name] + number if shift and name in origins else number
    traced = _confirmed(plain, {n: o for n, o in origins.items() if n not in constants}, spans, raw, total)
    return Provenance(canonical, traced, spans, frozenset(constants))


def _is_float(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.dtype in FLOAT_TYPES


def _float_array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float64)


def _run_coded(
    raw: ir.Model, spans: dict[str, tuple[int, tuple[int, ...]]], shift: int, bits: int
) -> Iterator[tuple[str, np.ndarray]]:
    """The canonical initializers of the model whose parameters hold one digit of their elements' numbers."""
    coded = raw.clone()
    for name, (start, shape) in spans.items():
        value = coded.graph.initializers[name]
        assert value.const_value is not None
        numbers = np.arange(start, start + int(np.prod(shape, dtype=np.int64)), dtype=np.int64).reshape(shape)
        digit = ((numbers >> shift) & ((1 << bits) - 1)).astype(value.const_value.dtype.numpy())
        value.const_value = ir.Tensor(np.asarray(digit), dtype=value.const_value.dtype, name=name)
    for name, value in canonicalise(coded, fold=False).graph.initializers.items():
        if _is_float(value):
            yield name, _float_array(value)


def _confirmed(
    plain: dict[str, np.ndarray],
    origins: dict[str, np.ndarray],
    spans: dict[str, tuple[int, tuple[int, ...]]],
    raw: ir.Model,
    total: int,
) -> dict[str, np.ndarray]:
    """The origins whose parameters give exactly the canonical weight."""
    flat = np.zeros(total)
    for name, (start, shape) in spans.items():
        flat[start : start + int(np.prod(shape, dtype=np.int64))] = _float_array(raw.graph.initializers[name]).ravel()
    found: dict[str, np.ndarray] = {}
    for name, values in plain.items():
        origin = origins.get(name)
        if origin is None or values.shape != origin.shape or not bool(((origin >= 0) & (origin < total)).all()):
            continue
        if np.array_equal(flat[origin], values):
            found[name] = origin
    return found
