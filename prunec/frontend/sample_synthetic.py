"""Made-up samples, when there are no data: reproducible from the seed, and never called anything but synthetic.

Float inputs are standard normal. Integers are uniform in [0, bound): the rows of the embedding they select, 256 for
bytes, else 10. Booleans, and inputs with "mask" in their name, are ones. Sample i depends on the seed, i and the
input's name only.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from prunec.diagnostics import PrunecError
from prunec.frontend.sample_inputs import InputSpec, Layout

SEQUENCE_LENGTH = 32
_DEFAULT_BOUND = 10
_SEQUENCE = re.compile(r"seq|len|token|time|frames|steps", re.IGNORECASE)


class SyntheticSource:
    """The items of a seeded generator: (where, dict of arrays), one sample each."""

    def __init__(
        self, layout: Layout, *, samples: int, seed: int, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """`shapes`: what dynamic axes are, for inputs that are named there."""
        self.layout, self.samples, self.seed = layout, samples, seed
        self.shapes = {spec.name: _shape(spec, layout, (shapes or {}).get(spec.name)) for spec in layout.inputs}

    def items(self) -> Iterator[tuple[str, object]]:
        for index in range(self.samples):
            item = {spec.name: self._array(spec, index) for spec in self.layout.inputs}
            yield "synthetic", item

    def fingerprint(self, used: int) -> str:
        inputs = [[s.name, s.dtype.str, list(self.shapes[s.name]), s.bound] for s in self.layout.inputs]
        text = json.dumps({"kind": "synthetic", "samples": used, "seed": self.seed, "inputs": inputs})
        return hashlib.sha256(text.encode()).hexdigest()

    def _array(self, spec: InputSpec, index: int) -> np.ndarray:
        shape = self.shapes[spec.name]
        rng = np.random.default_rng([self.seed, index, zlib.crc32(spec.name.encode())])
        if spec.dtype.kind not in "iub":
            return rng.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
        if spec.dtype.kind == "b" or "mask" in spec.name.lower():
            return np.ones(shape, spec.dtype)
        bound = spec.bound or (256 if spec.dtype.itemsize == 1 else _DEFAULT_BOUND)
        return rng.integers(0, min(bound, np.iinfo(spec.dtype).max), shape).astype(spec.dtype)


def _shape(spec: InputSpec, layout: Layout, given: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of one sample, with a leading 1 in a batched layout. PC312 for an axis nobody can guess."""
    if spec.shape is None:
        raise _unknown(spec, "its rank is not known")
    dims: list[int | str | None] = list(spec.shape if given is None else given)
    if layout.is_batched and dims:
        dims[0] = 1
    return tuple(_size(dim, axis, spec) for axis, dim in enumerate(dims))


def _size(dim: int | str | None, axis: int, spec: InputSpec) -> int:
    if isinstance(dim, int):
        return dim
    named = (dim or "").lower()
    if "batch" in named:
        return 1
    if _SEQUENCE.search(named) or (axis == 1 and len(spec.shape or ()) == 2 and spec.dtype.kind in "iub"):
        return SEQUENCE_LENGTH
    raise _unknown(spec, f'axis {axis} ("{dim}") is dynamic' if dim else f"axis {axis} is dynamic")


def _unknown(spec: InputSpec, reason: str) -> PrunecError:
    return PrunecError(
        "PC312",
        f"synthetic samples for this input cannot be made: {reason}",
        where=spec.name,
        hint=f"fix its shape with --input-shape {spec.name}=1,…, or give real samples with --calib",
    )
