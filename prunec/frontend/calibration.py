"""Calibration data: checked samples from a file, a folder, a function, or made up; the last fifth held out.

    spec: None → synthetic · FILE.npz · DIR of .npz / .npy · module:function · from Python any iterable of samples

Samples are read in order, the first `samples` of them are used, the last 20 % (at least one) are held out, and
everything is checked once at the start, so that an error comes before the work and not in the middle of it. Batches
have the model's own batch size B, or up to 8 samples of equal shape if its batch axis is dynamic.

| code  | says                                                       |
|-------|------------------------------------------------------------|
| PC301 | the specification names nothing that exists                |
| PC302 | a data file cannot be read                                 |
| PC303 | array names and input names differ                         |
| PC304 | a shape does not fit the input                             |
| PC305 | a type that cannot be cast without loss of meaning         |
| PC306 | NaN or Inf                                                 |
| PC307 | no samples                                                 |
| PC308 | too few samples to hold any out                            |
| PC309 | module:function cannot be imported                         |
| PC310 | module:function raised an exception                        |
| PC311 | module:function returned something else than arrays        |
| PC312 | synthetic: a dynamic axis nobody can guess                 |
| PC313 | the inputs disagree on the number of samples               |
| PC314 | an index outside the table it selects from                 |
| PC315 | the model has no inputs                                    |
| PC320 | warning: fewer samples than asked for                      |
| PC321 | warning: data is cast                                      |
| PC322 | warning: the last samples do not fill a batch and are left |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import Diagnostic, PrunecError
from prunec.frontend.sample_checks import Sample, Warnings, samples_of
from prunec.frontend.sample_files import SUFFIXES, FileSource
from prunec.frontend.sample_function import FunctionSource
from prunec.frontend.sample_inputs import Layout, layout_of
from prunec.frontend.sample_iterable import IterableSource
from prunec.frontend.sample_synthetic import SyntheticSource

HELD_OUT = 5  # one in this many units
Samples = str | Iterable[object] | None


class SampleSource(Protocol):
    """Items in a fixed order, as often as asked."""

    def items(self) -> Iterator[tuple[str, object]]: ...

    def fingerprint(self, used: int) -> str: ...


class Calibration:
    """Checked batches. `samples`: how many samples are used, `fit` and `held_out` together."""

    def __init__(
        self,
        kind: Literal["synthetic", "calibration"],
        source: SampleSource,
        layout: Layout,
        asked: int,
        *,
        demanded: bool = True,
    ) -> None:
        self.source: Literal["synthetic", "calibration"] = kind
        self._items, self._layout = source, layout
        self._warnings = Warnings()
        self._used_items = 0
        self.samples = self._count(asked, demanded)
        units = self.samples // layout.unit
        self._fit_samples = (units - max(1, units // HELD_OUT)) * layout.unit

    @property
    def warnings(self) -> list[Diagnostic]:
        return self._warnings.list()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 hex over the data and over how many samples of it are used."""
        text = f"{self._items.fingerprint(self._used_items)}\0{self.samples}\0{self._layout.unit}"
        return hashlib.sha256(text.encode()).hexdigest()

    def fit(self) -> Iterator[dict[str, np.ndarray]]:
        """Batches to calibrate with: {input name: array}, leading axis = batch."""
        return self._batches(0, self._fit_samples)

    def held_out(self) -> Iterator[dict[str, np.ndarray]]:
        """Batches to judge with; disjoint from `fit`."""
        return self._batches(self._fit_samples, self.samples)

    def _samples(self) -> Iterator[Sample]:
        for where, item in self._items.items():
            yield from samples_of(item, self._layout, where, self._warnings)

    def _count(self, asked: int, demanded: bool) -> int:
        """Check the samples that will be used and count them."""
        unit = self._layout.unit
        wanted = max(asked // unit, 2) * unit
        count = 0
        for where, item in self._items.items():
            count += sum(1 for _ in islice(samples_of(item, self._layout, where, self._warnings), wanted - count))
            self._used_items += 1
            if count >= wanted:
                break
        if count == 0:
            raise PrunecError("PC307", "there are no samples", hint="give at least two samples")
        if count < 2 * unit:
            one = f"a batch of {unit}" if unit > 1 else "one"
            raise PrunecError(
                "PC308",
                f"only {count} sample{'s' * (count > 1)}: too few to hold {one} out",
                hint=f"give at least {2 * unit} samples; 64 or more are better",
            )
        if demanded and count < wanted and count < asked:
            self._warnings.add(
                Diagnostic(
                    "PC320",
                    f"{count} samples are there, {asked} were asked for",
                    hint="give more, or ask for fewer with --samples",
                )
            )
        if count % unit:
            self._warnings.add(
                Diagnostic("PC322", f"the last {count % unit} samples do not fill a batch of {unit} and are left out")
            )
        return count - count % unit

    def _batches(self, start: int, stop: int) -> Iterator[dict[str, np.ndarray]]:
        layout, pending = self._layout, list[Sample]()
        for sample in islice(self._samples(), start, stop):
            if pending and layout.unit == 1 and not _same_shapes(pending[0], sample):
                yield _stack(pending, layout)
                pending = []
            pending.append(sample)
            if len(pending) == layout.most:
                yield _stack(pending, layout)
                pending = []
        if pending:
            yield _stack(pending, layout)


def open_calibration(
    spec: Samples,
    model: ir.Model,
    *,
    samples: int = 64,
    seed: int = 0,
    demanded: bool = True,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Calibration:
    """Open and check the data that `spec` names for the inputs of `model`. PC301–PC315.

    `samples` is how many to use; fewer give a warning if that many were `demanded`. `shapes`: what dynamic axes of
    made-up samples are, by input.
    """
    layout = layout_of(model)
    if spec is None:
        made_up = SyntheticSource(layout, samples=max(samples, 2 * layout.unit), seed=seed, shapes=shapes)
        return Calibration("synthetic", made_up, layout, samples)
    source: SampleSource
    source = _source(spec, samples=samples, seed=seed) if isinstance(spec, str) else IterableSource(spec, layout.names)
    return Calibration("calibration", source, layout, samples, demanded=demanded)


def _source(spec: str, *, samples: int, seed: int) -> SampleSource:
    path = Path(spec)
    if path.is_dir() or (path.is_file() and path.suffix in SUFFIXES):
        return FileSource(path)
    if path.exists():
        raise PrunecError("PC301", "neither .npz nor .npy nor a folder", where=spec, hint="write it with numpy.savez")
    module, colon, name = spec.partition(":")
    if colon and name and path.suffix not in SUFFIXES and "/" not in module:
        return FunctionSource(spec, samples=samples, seed=seed)
    raise PrunecError(
        "PC301",
        "no such file or folder, and not module:function",
        where=spec,
        hint="give FILE.npz, a folder of .npz or .npy files, or module:function",
    )


def _same_shapes(first: Sample, second: Sample) -> bool:
    return all(
        first[name].shape == array.shape and (array.ndim > 0 or bool(first[name] == array))
        for name, array in second.items()
    )


def _stack(samples: list[Sample], layout: Layout) -> dict[str, np.ndarray]:
    first = samples[0]
    if not layout.is_batched:
        return dict(first)
    return {
        name: array if array.ndim == 0 else np.concatenate([sample[name] for sample in samples])
        for name, array in first.items()
    }
