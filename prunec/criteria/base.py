"""What a criterion is, and the arrays that criteria are made from.

A criterion gives every channel of a group one float64 score; higher means more important. Scores of two groups are
made comparable afterwards (`prunec.plan.normalise`), so a criterion need not care about their units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import Diagnostic, PrunecError
from prunec.graph import Analysis, Consumer, Group, Member
from prunec.graph.rules.base import attribute
from prunec.graph.weights import weight_array

if TYPE_CHECKING:
    from prunec.statistics import LayerStatistics
    from prunec.statistics.gradients import GradientStatistics

Needs = Literal["moments", "covariance", "gradients", "relevance"]
"""Means and second moments per channel, covariances as well; gradients of weights, relevance of channels."""


class Criterion(Protocol):
    """How important each channel of a group is.

    `needs` names the statistics that `score` reads; a `data_free` criterion reads none.
    """

    name: str
    needs: frozenset[Needs]
    data_free: bool

    def score(self, group: Group, context: ScoreContext) -> np.ndarray:
        """float64 [group.size], finite, higher = more important."""


@dataclass(frozen=True)
class Columns:
    """The weight a consumer sums with, one row per position of its data axis.

    weight: [positions, everything else], in the weight's dtype (conv: the rest is outputs × kh × kw)
    index:  int64 [positions], the group-local channel of each position, -1 where it is another group's
    """

    consumer: Consumer
    weight: np.ndarray
    index: np.ndarray


@dataclass(frozen=True)
class ScoreContext:
    """Everything a criterion may look at. `statistics` has one entry per weighted consumer, by its node's name.

    `notes` collects what a criterion has to say besides the scores: a fallback it had to take, say.
    """

    model: ir.Model
    analysis: Analysis
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)
    seed: int = 0
    notes: list[Diagnostic] = field(default_factory=list)
    gradients: GradientStatistics | None = None

    @cached_property
    def nodes(self) -> dict[str, ir.Node]:
        return {node.name or "": node for node in self.model.graph}

    def note(self, code: str, message: str, where: str) -> None:
        """Say something once."""
        found = Diagnostic(code, message, where)
        if found not in self.notes:
            self.notes.append(found)

    def array(self, tensor: str) -> np.ndarray:
        """Data of an initializer (float16 and bfloat16 are widened to float32)."""
        value = self.model.graph.initializers[tensor].const_value
        assert value is not None, f"{tensor} has no data"
        array = value.numpy()
        return _float(array)

    def rows(self, member: Member) -> np.ndarray:
        """A member's tensor as [axis length, everything else], dequantised where it is quantised."""
        array = _float(weight_array(self.nodes[member.node], member.input_index, as_stored=True))
        array = np.moveaxis(array, member.axis, 0)
        return array.reshape(array.shape[0], -1)

    def norms(self, member: Member, power: int) -> np.ndarray:
        """`row_norms` of a member's rows, float64 [axis length]: once for all the groups that share the axis."""
        place = (member.node, member.input_index, member.axis, power)
        weight = self.model.graph.initializers[member.tensor].const_value
        found = self._norms.get(place)
        if found is None or found[0] is not weight:
            found = self._norms[place] = (weight, row_norms(self.rows(member), power))
        return found[1]

    def columns(self, group: Group) -> list[Columns]:
        """The weighted consumers of a group's channels."""
        return [Columns(own, consumed_rows(self, own), index) for own, index in self.readers(group)]

    def readers(self, group: Group) -> Iterator[tuple[Consumer, np.ndarray]]:
        """The same without their weights: consumer and `Columns.index`."""
        local = np.full(self.analysis.channel_count, -1, np.int64)
        local[group.channels] = np.arange(group.size)
        readers = {number for channel in group.channels.tolist() for number in self._readers[channel]}
        for consumer in (self._weighted[number] for number in sorted(readers)):
            yield consumer, local[consumer.channels]

    def layer(self, consumer: Consumer) -> LayerStatistics:
        """Statistics of a consumer's data.

        Raises:
            PrunecError PC210: none were collected.
        """
        found = self.statistics.get(f"{consumer.node}#{consumer.axis}", self.statistics.get(consumer.node))
        if found is None:
            hint = "pass --calib, or pick a criterion that needs no data: l1, l2, lamp, fpgm"
            raise PrunecError("PC210", "no statistics were collected for this layer", where=consumer.node, hint=hint)
        return found

    def gradient_statistics(self) -> GradientStatistics:
        """PrunecError PC210 where none were collected."""
        if self.gradients is None:
            hint = "pass --calib, or pick a criterion that needs no data: l1, l2, lamp, fpgm"
            raise PrunecError("PC210", "no gradients were collected", hint=hint)
        return self.gradients

    def inverse(self, consumer: Consumer) -> np.ndarray:
        """C⁻¹ of a consumer's data, float64 [positions, positions], damped as its `inverse_diag` is.

        Remembered for as long as the same consumer is asked about.
        """
        from scipy.linalg import cho_factor, cho_solve

        place = (consumer.node, consumer.axis)
        if place not in self._inverse:
            covariance = self.layer(consumer).covariance
            assert covariance is not None
            self._inverse.clear()
            factor = cho_factor(covariance + np.diag(ridge(covariance)), lower=True)
            self._inverse[place] = cho_solve(factor, np.eye(len(covariance)))
        return self._inverse[place]

    @cached_property
    def _inverse(self) -> dict[tuple[str, int], np.ndarray]:
        return {}

    @cached_property
    def _norms(self) -> dict[tuple[str, int, int, int], tuple[ir.TensorProtocol | None, np.ndarray]]:
        return {}

    @cached_property
    def _readers(self) -> list[list[int]]:
        """Per class, the numbers of the weighted consumers that sum over it."""
        found: list[list[int]] = [[] for _ in range(self.analysis.channel_count)]
        for number, consumer in enumerate(self._weighted):
            for channel in np.unique(consumer.channels).tolist():
                found[channel].append(number)
        return found

    @cached_property
    def _weighted(self) -> tuple[Consumer, ...]:
        return tuple(c for c in self.analysis.consumers if c.weight_index is not None)


def consumed_rows(context: ScoreContext, consumer: Consumer, own: np.ndarray | None = None) -> np.ndarray:
    """[positions of the data axis, everything else]: row j is all that multiplies input position j.

    `own`: other numbers in the shape of the weight, its gradients for instance.

    A grouped Conv stores [M, C/g, k…]; its input channel q·C/g + j is column j of the M/g filters of group q.
    """
    node = context.nodes[consumer.node]
    assert consumer.weight_index is not None and consumer.weight_axis is not None
    weight = _float(weight_array(node, consumer.weight_index)) if own is None else own
    convolves = node.op_type in ("Conv", "FusedConv", "QLinearConv", "ConvInteger")
    groups = int(attribute(node, "group", 1)) if convolves else 1
    if groups > 1:
        split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return np.asarray(split.transpose(0, 2, 1, 3).reshape(groups * weight.shape[1], -1))
    rows = np.moveaxis(weight, consumer.weight_axis, 0)
    scaled = node.op_type in ("Gemm", "FusedGemm", "QGemm", "FusedMatMul")
    alpha = float(attribute(node, "alpha", 1.0)) if scaled else 1.0
    rows = rows.reshape(rows.shape[0], -1)
    return rows if alpha == 1.0 else np.asarray(rows * weight.dtype.type(alpha))


def row_norms(rows: np.ndarray, power: int) -> np.ndarray:
    """Σ |w|^p of each row, float64 [rows], summed in float64 without a float64 copy of the weight."""
    if power == 1:
        return np.asarray(np.abs(rows).sum(axis=1, dtype=np.float64))
    return np.asarray(np.einsum("cd,cd->c", rows, rows, dtype=np.float64))


def _float(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def ridge(covariance: np.ndarray) -> np.ndarray:
    """The damping of `statistics.collect.inverse_diagonal`, float64 [positions]."""
    from prunec.statistics.collect import INVERSE_DAMPING

    variance = np.diagonal(covariance)
    floor = float(variance.mean()) or 1.0
    return np.asarray(INVERSE_DAMPING * np.where(variance > 1e-12 * floor, variance, floor))


def per_channel(values: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Sum values [positions] into channels [size] by `index`; positions with -1 are left out."""
    own = index >= 0
    return np.bincount(index[own], values[own].astype(np.float64), size)


def score_groups(criterion: Criterion, groups: Iterable[Group], context: ScoreContext) -> dict[str, np.ndarray]:
    """Scores of each group by its id, checked.

    Raises:
        PrunecError PC211: a score is NaN or infinite.
    """
    scores: dict[str, np.ndarray] = {}
    for group in groups:
        found = np.asarray(criterion.score(group, context), np.float64)
        assert found.shape == (group.size,), f"{criterion.name} gave {found.shape} scores for {group.id}"
        if not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).sum())
            hint = "look for NaN or infinite weights, or calibration samples that overflow"
            message = f"{criterion.name} gives {bad} of {group.size} channels a score that is not a finite number"
            raise PrunecError("PC211", message, where=where(group), hint=hint)
        scores[group.id] = found
    return scores


def where(group: Group) -> str:
    """A group as a user knows it: its id and the layers that make its channels."""
    nodes = list(dict.fromkeys(member.node for member in group.producers()))
    more = f", … {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return f"{group.id}: {', '.join(nodes[:3])}{more}"
