"""How far two results are apart: the largest relative error of one run, and agreement streamed over many.

For one output of a reference `y` and a candidate `z`:

    max_relative(y, z) = max |z − y| / max |y|            (0 for equal integers; inf for other shapes or integers)
    relative error     = sqrt(Σ ‖z − y‖² / Σ ‖y‖²)        sums over all batches
    cosine             = mean over samples of ⟨y, z⟩ / (‖y‖ ‖z‖)
    fidelity           = 1 − relative error, for outputs of one number per sample, whose cosine is a sign
    top1_agreement     = share of positions where argmax over the last axis is the same

NaN beside NaN and an infinity beside the same infinity count as equal. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

INEXACT = "fc"
"""Kinds of numpy dtypes that are compared with a tolerance; everything else has to be equal."""


def max_relative(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Largest absolute difference relative to the largest magnitude of the reference; inf where nothing compares."""
    if reference.shape != candidate.shape:
        return float("inf")
    if reference.size == 0:
        return 0.0
    if _kind(reference) not in INEXACT:
        return 0.0 if np.array_equal(reference, candidate) else float("inf")
    y, z = _float(reference), _float(candidate)
    same = (y == z) | (np.isnan(y) & np.isnan(z))
    if same.all():
        return 0.0
    if not (np.isfinite(y[~same]).all() and np.isfinite(z[~same]).all()):
        return float("inf")
    scale = float(np.abs(y[np.isfinite(y)]).max())
    difference = float(np.abs(y[~same] - z[~same]).max())
    return difference / scale if scale > 0 else float("inf")


def worst_relative(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> float:
    """`max_relative` of the worst output; outputs are paired by name."""
    return max((max_relative(y, candidate[name]) for name, y in reference.items()), default=0.0)


def _kind(array: np.ndarray) -> str:
    """numpy's kind; the extension types for bfloat16 and 8-bit floats (kind V) count as floats."""
    return "f" if array.dtype.kind == "V" and array.dtype.names is None else array.dtype.kind


def _float(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def is_inexact(array: np.ndarray) -> bool:
    """Whether the array holds floating-point numbers."""
    return _kind(array) in INEXACT


def _is_rows(array: np.ndarray) -> bool:
    """Whether it may hold rows of class scores."""
    return array.ndim in (2, 3) and array.shape[-1] > 1 and array.size > 0


@dataclass
class Agreement:
    """Streams one output of a dense and a pruned model, batch by batch, and answers how much they agree."""

    samples: int = 0
    difference: float = 0.0
    energy: float = 0.0
    cosines: float = 0.0
    positions: int = 0
    same_top1: int = 0
    elements: int = 0
    equal: int = 0
    classes: set[int] = field(default_factory=set)
    inexact: bool = True
    each: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, dense: np.ndarray, pruned: np.ndarray) -> None:
        """One batch; the leading axis counts samples. Results of different shapes do not agree at all."""
        self.inexact = is_inexact(dense)
        if dense.size == 0 and pruned.size == 0:  # a detector that found nothing, twice
            return
        count = dense.shape[0] if dense.ndim else 1
        self.samples += max(count, 1)
        self.elements += max(dense.size, pruned.size if dense.size == 0 else 0)
        if dense.shape != pruned.shape:
            self._disagree(dense)
            return
        if not self.inexact:
            same = dense == pruned
            self.equal += int(same.sum())
            self._keep("equal", same.reshape(max(count, 1), -1))
            return
        y = np.nan_to_num(_float(dense).real.reshape(count, -1), posinf=0, neginf=0)
        z = np.nan_to_num(_float(pruned).real.reshape(count, -1), posinf=0, neginf=0)
        self.difference += float(((z - y) ** 2).sum())
        self.energy += float((y**2).sum())
        norms = np.sqrt((y**2).sum(1) * (z**2).sum(1))
        products = (y * z).sum(1)
        both_zero = (y == 0).all(1) & (z == 0).all(1)
        cosines = np.where(both_zero, 1.0, products / np.where(norms > 0, norms, 1))
        self.cosines += float(cosines.sum())
        self._keep("cosine", cosines[:, None])
        self._add_top1(dense, pruned)

    def _keep(self, name: str, agreement: np.ndarray) -> None:
        """The mean over [samples, positions] of one number, sample by sample."""
        self.each.setdefault(name, []).append(agreement.mean(axis=1, dtype=np.float64))

    def losses(self) -> np.ndarray | None:
        """What each sample's primary number is short of 1, float64 [samples]; None where it is no mean over them."""
        kept = self.each.get(next(iter(self.numbers())), [])
        return 1 - np.concatenate(kept) if sum(map(len, kept)) == self.samples > 0 else None

    def _disagree(self, dense: np.ndarray) -> None:
        """Another shape: as wrong as answering zero, and no position the same."""
        if self.inexact:
            energy = float((np.nan_to_num(_float(dense).real, posinf=0, neginf=0) ** 2).sum()) or 1.0
            self.energy += energy
            self.difference += energy
            self.positions += dense.size // dense.shape[-1] if _is_rows(dense) else 0

    def _add_top1(self, dense: np.ndarray, pruned: np.ndarray) -> None:
        if not _is_rows(dense):
            return
        a, b = _float(dense).real.argmax(-1), _float(pruned).real.argmax(-1)
        self.positions += a.size
        self.same_top1 += int((a == b).sum())
        self._keep("top1_agreement", (a == b).reshape(len(dense), -1))
        self.classes |= set(np.unique(a).tolist())

    @property
    def is_classification(self) -> bool:
        """Rows of scores (rank 2 or 3, last axis ≥ 2) whose largest entry differs between positions.

        Where the dense model always answers the same class, as one with an outlier dimension or on meaningless inputs
        does, agreeing about it says nothing.
        """
        return self.positions > 0 and len(self.classes) > 1

    @property
    def relative_error(self) -> float:
        """Of floating-point outputs, over all batches so far."""
        return float(np.sqrt(self.difference / self.energy) if self.energy > 0 else self.difference > 0)

    def numbers(self) -> dict[str, float]:
        """Everything there is to say, the primary one first; higher is better except for `relative_error`."""
        if not self.inexact:
            return {"equal": self.equal / max(self.elements, 1)}
        found: dict[str, float] = {}
        if self.is_classification:
            found["top1_agreement"] = self.same_top1 / self.positions
        error = self.relative_error
        if self.elements > self.samples:
            found["cosine"] = self.cosines / max(self.samples, 1)
        else:
            found["fidelity"] = 1 - error
        found["relative_error"] = error
        if self.positions and not self.is_classification:
            found["top1_agreement"] = self.same_top1 / self.positions
        return found
