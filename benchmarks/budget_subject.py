"""A zoo model as the planners for times see it: every way to spread what goes, for widths and for zeros."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import onnx_ir as ir

from benchmarks.subject import Subject
from prunec.api.choices import Judge
from prunec.api.contest import Contest, contest_of
from prunec.api.depth_timing import TimedDepth
from prunec.api.opening import open_model
from prunec.api.options import PlanOptions
from prunec.api.precision_timing import TimedPrecisions
from prunec.api.progress import Progress, silent
from prunec.api.pruning import Judged
from prunec.api.statistics import cut_errors, score_context
from prunec.api.timed import TimedPlanner
from prunec.api.timing import TimedWidths
from prunec.api.watches import timed_dense
from prunec.api.zero_timing import TimedZeros
from prunec.cache import Cache
from prunec.criteria import create
from prunec.graph.cost import node_macs
from prunec.passes.sparsify.views import constants, prunable_layers
from prunec.plan.layers import DENSE
from prunec.plan.levels import Allocation, Source
from prunec.plan.plan import Plan, Scope
from prunec.plan.planner import FLOORS, Planner
from prunec.statistics.output_errors import MOST_SAMPLES, OutputErrors

WIDTHS: dict[str, tuple[str, Scope]] = {
    "loss": ("obs", "loss"),
    "uniform": ("obs", "layer"),
    "global magnitude": ("l2", "global"),
    "global LAMP": ("lamp", "global"),
    "random": ("random", "layer"),
}
"""Criterion and scope. All may go as far as "loss" may: with the higher floor of "global" they would be held back."""
BLOCKS = "loss, blocks"
"""As "loss", with whole blocks among the options."""
ZEROS: dict[str, Allocation] = {
    "loss": "loss",
    "uniform": "uniform",
    "global magnitude": "global",
    "global LAMP": "lamp",
    "ERK": "erk",
}
DEFAULT = "default"
"""What a compile does where nobody says how to spread what goes: the best of several ways (`api.contest`)."""
TYPES: dict[str, str] = {"int8": "int8", "int8 or float32": "mixed"}
"""As "loss", in 8 bits, or with the data type of each layer among the options: `--precision`."""
WAYS: dict[str, tuple[str, ...]] = {
    "onnx": (DEFAULT, *WIDTHS, BLOCKS),
    "cpu": (DEFAULT, *ZEROS, *TYPES),
    "wasm": (DEFAULT, *ZEROS),
    "arm64": (DEFAULT, *ZEROS),
}
"""By target: channels in ONNX Runtime, zeros in generated kernels."""
SWEPT: dict[str, tuple[str, ...]] = {
    target: tuple(way for way in ways if way != DEFAULT) for target, ways in WAYS.items()
}
"""Those of `--sweep`, whose points are not compared."""


class BudgetSubject:
    """`subject` for one target. `shapes`: of what is run where times are taken; the data keeps its own.

    `losses`: the source for zeros by loss, where a planner is not asked for another one.
    """

    def __init__(
        self,
        subject: Subject,
        target: str,
        *,
        shapes: Mapping[str, Sequence[int]] | None = None,
        solver: str | None = None,
        losses: Source | None = None,
        cache: Cache | None = None,
        progress: Progress = silent,
    ) -> None:
        self.subject, self.target, self._solver, self._cache = subject, target, solver, cache
        self._shapes, self._progress, self.losses = dict(shapes or {}), progress, losses

    @contextlib.contextmanager
    def planner(self, way: str, losses: Source | None = None) -> Iterator[TimedPlanner]:
        """One that spreads by `way`, ready to be asked; `losses`: of zeros. PrunecError where it cannot be timed."""
        opened, calibration, options = self.subject.opened, self.subject.calibration, self.options(way, losses)
        with timed_dense(opened, options) as dense:
            if self.target == "onnx":
                planners = TimedDepth if way == BLOCKS else TimedWidths
                yield planners(opened, self._channels(way), dense, calibration, options, self._progress)
            else:
                planners = TimedPrecisions if way in TYPES else TimedZeros
                yield planners(opened, dense, calibration, options, self._progress)

    def options(self, way: str, losses: Source | None = None) -> PlanOptions:
        seed, cache = self.subject.seed, self._cache
        if self.target == "onnx":
            criterion, scope = (None, None) if way == DEFAULT else _of_channels(way)
            return PlanOptions(criterion=criterion, scope=scope, seed=seed, cache=cache, made_up_shapes=self._shapes)
        allocation: Allocation | None = None if way == DEFAULT else ZEROS.get(way, "loss")
        source = losses or self.losses if allocation == "loss" else None
        return PlanOptions(
            target=self.target, precision=TYPES.get(way), allocation=allocation, losses=source, solver=self._solver,
            seed=seed, cache=cache, made_up_shapes=self._shapes,
        )  # fmt: skip

    def judge(self, way: str, own: Judged | None = None) -> Judge:
        return Judge(self.subject.opened, self.subject.calibration, self.options(way), own)

    def contest(self, way: str, planner: TimedPlanner) -> Contest | None:
        """Of ways to spread what goes, where none is asked for."""
        subject = self.subject
        return contest_of(
            planner, self.judge(way), subject.opened, subject.calibration, self.options(way), self._progress
        )

    @cached_property
    def errors(self) -> OutputErrors:
        """Of the outputs, on held-out calibration data."""
        return OutputErrors(self.subject.opened.canonical, self.subject.calibration, MOST_SAMPLES)

    def macs(self, plan: Plan) -> float:
        """Share of the multiply-accumulates that are left on weights that are no zeros."""
        density = _density(plan)
        if not density:
            return plan.realised.flops
        return _left({node.name or "": node_macs(node) for node in self._static.graph}, density)

    def weights(self, plan: Plan) -> float:
        """Share of the layers' weights that are left and no zeros."""
        density = _density(plan)
        if not density:
            return 1 - plan.realised.sparsity
        layers = prunable_layers(self.subject.opened.canonical)
        return _left({name: sum(w.size for w in constants(layer)) for name, layer in layers.items()}, density)

    @cached_property
    def _static(self) -> ir.Model:
        """With the shapes that are timed, and all that follow from them."""
        if not self._shapes:
            return self.subject.opened.canonical
        return open_model(self.subject.found.path, self._shapes).canonical

    def _channels(self, way: str) -> Planner:
        criterion, scope = _of_channels(way)
        opened, seed = self.subject.opened, self.subject.seed
        own, options = create(criterion), self.options(way)
        data = (opened.canonical, opened.analysis, self.subject.calibration)
        context = score_context(*data, own, options, self._progress)
        return Planner(
            opened.canonical, opened.analysis, own, context, scope=scope, seed=seed, floor=FLOORS["loss"],
            source_sha256=opened.source.sha256, measured=cut_errors(*data, options, self._progress),
        )  # fmt: skip


def _density(plan: Plan) -> dict[str, float]:
    """Share of the weights that stay, of layers with zeros."""
    return {layer.node: 1 - layer.level for layer in plan.layers if layer.pattern != DENSE}


def _left(sizes: Mapping[str, int], density: Mapping[str, float]) -> float:
    return sum(size * density.get(name, 1.0) for name, size in sizes.items()) / sum(sizes.values())


def _of_channels(way: str) -> tuple[str, Scope]:
    """Criterion and scope."""
    return WIDTHS["loss" if way in (BLOCKS, DEFAULT) else way]
