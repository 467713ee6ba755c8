"""Samples from Python: any iterable of tensors, arrays, tuples or dicts, a torch DataLoader for instance.

A tuple gives the inputs in their order; what it has beyond them (labels) is left out. A dict names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prunec.diagnostics import PrunecError
from prunec.frontend.sample_function import KeptSource

_WHERE = "calib"


class IterableSource(KeptSource):
    """Items by input name. It is iterated once and as far as samples are needed; what it gave is kept."""

    def __init__(self, items: Iterable[object] | object, names: Sequence[str]) -> None:
        if not isinstance(items, Iterable):
            hint = "pass a file name, module:function, or an iterable of tensors, arrays, tuples or dicts"
            raise PrunecError("PC311", f"a {type(items).__name__} is no samples", where=_WHERE, hint=hint)
        is_one = isinstance(items, Mapping) or hasattr(items, "__array__")
        super().__init__(_WHERE, _named(iter([items] if is_one else items), tuple(names)))


def _named(items: Iterator[object], names: tuple[str, ...]) -> Iterator[object]:
    for item in items:
        if isinstance(item, Mapping):
            yield {name: _array(value) for name, value in item.items()}
        elif isinstance(item, tuple | list):
            yield {name: _array(value) for name, value in zip(names, item, strict=False)}
        else:
            yield _array(item)


def _array(value: Any) -> np.ndarray:
    """A torch tensor leaves its graph and device."""
    tensor = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(tensor)
