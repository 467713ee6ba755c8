"""One raw item (a dict of arrays from a file or a function) → checked samples in the model's types.

An array may hold one sample (one axis less than the input), a batch (the input's rank) or batches (one axis more,
of the model's own batch size); a scalar input may be given once for all samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from prunec.diagnostics import Diagnostic, PrunecError
from prunec.frontend.sample_inputs import InputSpec, Layout

Sample = dict[str, np.ndarray]


class Warnings:
    """Diagnostics, each (code, place) once."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], Diagnostic] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        self._found.setdefault((diagnostic.code, diagnostic.where), diagnostic)

    def list(self) -> list[Diagnostic]:
        return list(self._found.values())


def samples_of(item: object, layout: Layout, where: str, warnings: Warnings) -> Iterator[Sample]:
    """Each sample of `item`; batched layout: every array keeps a leading axis of 1. PC303–PC306, PC313, PC314."""
    arrays = _named(item, layout, where)
    checked = {spec.name: _check(arrays[spec.name], spec, layout, where, warnings) for spec in layout.inputs}
    counts = {name: len(array) for name, array in checked.items() if array.ndim}
    sizes = set(counts.values())
    if len(sizes) > 1:
        raise PrunecError(
            "PC313",
            "the inputs disagree on the number of samples: " + ", ".join(f"{k} has {v}" for k, v in counts.items()),
            where=where,
            hint="give every input the same number of samples on its leading axis",
        )
    for index in range(sizes.pop() if sizes else 1):
        yield {spec.name: _pick(checked[spec.name], index, spec, layout) for spec in layout.inputs}


def _pick(array: np.ndarray, index: int, spec: InputSpec, layout: Layout) -> np.ndarray:
    if array.ndim == 0:
        return array
    keeps_axis = layout.is_batched and spec.shape != ()
    return array[index : index + 1] if keeps_axis else np.asarray(array[index])


def _named(item: object, layout: Layout, where: str) -> Mapping[str, np.ndarray]:
    names = layout.names
    if isinstance(item, np.ndarray) and len(names) == 1:
        return {names[0]: item}
    if not isinstance(item, Mapping):
        raise PrunecError(
            "PC311",
            f"an item is a {type(item).__name__}, not a dict of arrays",
            where=where,
            hint=f"yield a dict with the keys {', '.join(names)}" + (" or a plain array" if len(names) == 1 else ""),
        )
    missing = [name for name in names if name not in item]
    extra = [str(name) for name in item if name not in names]
    if missing or extra:
        told = [f"missing: {', '.join(missing)}"] if missing else []
        told += [f"unknown: {', '.join(sorted(extra))}"] if extra else []
        raise PrunecError(
            "PC303",
            "array names do not match the model's inputs (" + "; ".join(told) + ")",
            where=where,
            hint=f"the model's inputs are: {', '.join(names)}",
        )
    return {name: np.asarray(item[name]) for name in names}


def _check(array: np.ndarray, spec: InputSpec, layout: Layout, where: str, warnings: Warnings) -> np.ndarray:
    """The array in the input's dtype, its leading axis over samples (a scalar given once stays a scalar)."""
    array = _with_sample_axis(array, spec, layout, where)
    if spec.shape is not None and array.ndim:
        static = spec.shape[1:] if layout.is_batched and spec.shape else spec.shape
        for axis, (have, want) in enumerate(zip(array.shape[1:], static, strict=True)):
            if isinstance(want, int) and have != want:
                raise _misfit(array.shape[1:], spec, where, f"axis {axis + layout.is_batched} must be {want}")
    if array.ndim and 0 in array.shape[1:]:
        raise _misfit(array.shape[1:], spec, where, "an axis is empty")
    array = _cast(array, spec, where, warnings)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PrunecError(
            "PC306", f'NaN or Inf in input "{spec.name}"', where=where, hint="remove or repair these samples"
        )
    if spec.bound is not None and array.size and (int(array.max()) >= spec.bound or int(array.min()) < -spec.bound):
        raise PrunecError(
            "PC314",
            f'input "{spec.name}" has values from {array.min()} to {array.max()}, its table has {spec.bound} rows',
            where=where,
            hint="use the tokenizer that belongs to the model",
        )
    return array


def _with_sample_axis(array: np.ndarray, spec: InputSpec, layout: Layout, where: str) -> np.ndarray:
    if spec.shape is None:
        return array if layout.is_batched else array[None]
    rank = len(spec.shape)
    if rank == 0:
        if array.ndim > 1:
            raise _misfit(array.shape, spec, where, "a scalar per sample is wanted")
        return array
    if not layout.is_batched:
        if array.ndim not in (rank, rank + 1):
            raise _misfit(array.shape, spec, where, f"rank {rank} (one sample) or {rank + 1} (samples) is wanted")
        return array if array.ndim == rank + 1 else array[None]
    if array.ndim == rank:
        return array
    if array.ndim == rank - 1:
        return array[None]
    if array.ndim == rank + 1 and array.shape[1] == layout.unit:
        return array.reshape(-1, *array.shape[2:])
    raise _misfit(array.shape, spec, where, f"rank {rank} is wanted, samples on the leading axis")


def _misfit(shape: tuple[int, ...], spec: InputSpec, where: str, reason: str) -> PrunecError:
    wanted = "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape or ()) + "]"
    return PrunecError(
        "PC304",
        f'data of shape {list(shape)} does not fit input "{spec.name}" {wanted}: {reason}',
        where=where,
        hint="prepare the samples exactly as for inference",
    )


def _cast(array: np.ndarray, spec: InputSpec, where: str, warnings: Warnings) -> np.ndarray:
    if array.dtype == spec.dtype:
        return array
    cast = array.astype(spec.dtype) if _may_cast(array, spec.dtype) else None
    if cast is None:
        raise PrunecError(
            "PC305",
            f'{array.dtype} data for input "{spec.name}", which is {spec.dtype}',
            where=where,
            hint=f"store the array as {spec.dtype}",
        )
    warnings.add(
        Diagnostic(
            "PC321", f"{array.dtype} data is cast to {spec.dtype}", spec.name, f"store the array as {spec.dtype}"
        )
    )
    return cast


def _may_cast(array: np.ndarray, target: np.dtype) -> bool:
    """Number to number of the same kind where the values fit, whole numbers to float; never float to whole."""
    have, want = array.dtype.kind, target.kind
    if have not in "iufb":
        return False
    if want == "f":
        return True
    if want == "b":
        return have in "iu" and bool(np.isin(array, (0, 1)).all())
    if want in "iu" and have in "iub":
        limits = np.iinfo(target)
        return not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)
    return have == "f" and target.kind not in "iub"
