"""What a target with an artifact of its own adds to a compile.

    check → rules → (plan, prune, judge) → write → (measure)

A target of `api/target_list.py` without a row in `prunec.catalog.BACKENDS` is served by `model.onnx` alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import onnx_ir as ir

from prunec.cache import Cache
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.measure.contender import Contender
from prunec.measure.modelled import Modelled
from prunec.measure.results import LayerTiming
from prunec.passes.sparsify import LayerPattern
from prunec.plan.layers import TargetRules
from prunec.plan.plan import LayerPlan
from prunec.verify.records import LoweringRecord, TensorRTRecord

Feeds = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]


@dataclass(frozen=True)
class Count:
    """Zeros of a weight: `units` of the pattern, `valid` ones, share of `zeros`, `negative` ones (−0.0)."""

    units: int
    valid: int
    zeros: float
    negative: int

    @property
    def is_sparse(self) -> bool:
        """Every unit is valid, and every zero is +0."""
        return self.units > 0 and self.valid == self.units and not self.negative


@dataclass(frozen=True)
class Verdict:
    """What a target makes of one layer.

    `inputs`, `outputs`: channels (of one group); `positions` of the kernel; `rows` of activations that one run
    multiplies (None: dynamic). `axis`: of the stored tensor. `count`: its zeros now. `eligible` is a rule,
    `worthwhile` a prediction. `reason`: why it would stay dense, or why zeros that it has do not count; `change`: what
    would help. Both are empty where it is eligible and worthwhile.
    """

    node: str
    op: str
    tensor: str
    axis: int | None
    inputs: int | None
    outputs: int | None
    positions: int
    rows: int | None
    macs: int
    count: Count | None
    eligible: bool
    worthwhile: bool
    reason: str
    change: str

    @property
    def is_sparse(self) -> bool:
        """Whether the target would find sparse weights here now."""
        return self.eligible and self.count is not None and self.count.is_sparse


@dataclass(frozen=True)
class DemoOptions:
    """Files for a demo page: names of classes, a line each, and the vocabulary of a WordPiece tokeniser."""

    labels: Path | None = None
    vocabulary: Path | None = None


@dataclass(frozen=True)
class BuildOptions:
    """What the user said about the artifact.

    `builds`: False makes the package without the device. `ranges`: input name → least, usual and largest shape.
    `precision`, `products`: what the graph computes in, and which operator its matrix products are; None: the target's.
    `measures`: whether anything will be timed. `shapes`: of the inputs by name, a program for each; empty: the model's.
    `tune`: none, or how thoroughly kernels are chosen by measuring them; `caches`: whether that is remembered.
    `weights`: beside a WebAssembly module, or embedded in it; None: the target's. `relaxed_simd`: of WebAssembly.
    `demo`: whether a page goes with it, and what that is told. `storage`: what its weights are rounded to and kept in.
    """

    builds: bool = True
    ranges: Mapping[str, Range] = field(default_factory=dict)
    threads: int = 1
    precision: str | None = None
    products: str | None = None
    measures: bool = True
    shapes: tuple[Mapping[str, Sequence[int]], ...] = ()
    tune: str = "none"
    caches: bool = True
    weights: str | None = None
    relaxed_simd: bool = False
    progress: Callable[[str, int, int], None] = lambda what, done, of: None
    demo: DemoOptions | None = None
    storage: str = "fp32"


@dataclass(frozen=True)
class Subject:
    """What an artifact is made from: the pruned model, the dense one, and what the plan says of each layer.

    `batches`: held-out calibration data, at least one batch. `fit`: the data to calibrate with, as often as asked.
    """

    name: str
    model: ir.Model
    dense: ir.Model
    layers: tuple[LayerPlan, ...]
    batches: tuple[Feeds, ...]
    fit: Callable[[], Iterable[Feeds]]


@dataclass(frozen=True)
class Artifact:
    """What was written into the package's folder, and shown about it. `usage` goes into its README.txt.

    `contenders` are to be measured on `feeds`; their files lie in `scratch`, which whoever measures cleans up.
    `beside_onnxruntime`: together with the dense and the pruned model there. `layers`: what was timed already.
    `other_feeds`: one for every further shape of the inputs that the artifact is made for. `modelled`: what layers
    would take on a machine that is not here.
    """

    usage: str
    lowering: LoweringRecord | None = None
    tensorrt: TensorRTRecord | None = None
    contenders: tuple[Contender, ...] = ()
    feeds: Feeds | None = None
    warnings: tuple[Diagnostic, ...] = ()
    scratch: tempfile.TemporaryDirectory[str] | None = None
    beside_onnxruntime: bool = False
    layers: tuple[LayerTiming, ...] | None = None
    other_feeds: tuple[Feeds, ...] = ()
    modelled: Modelled | None = None


@dataclass(frozen=True)
class LayerTimes:
    """What one layer takes in the target's kernels, in µs, dense and with the zeros that were asked about.

    `modelled_on`: the core that a model says so of; None where it was measured.
    """

    dense_us: float
    sparse_us: float
    modelled_on: str | None = None

    @property
    def is_faster(self) -> bool:
        """Whether zeros pay."""
        return self.sparse_us < self.dense_us


class Backend(Protocol):
    """One target. `patterns`: what --pattern may be; the first is what `auto` means.

    `specialises`: one artifact can be made for several shapes of the inputs. `models_times`: what it says of times is
    modelled, and needs no measuring here.
    """

    name: str
    specialises: bool
    models_times: bool
    patterns: tuple[str, ...]

    def check(self, options: BuildOptions) -> None:
        """Before any work: PrunecError PC41x where the artifact cannot be built here and has to be."""

    def check_model(self, model: ir.Model, options: BuildOptions) -> None:
        """As soon as the model is read: PrunecError PC41x where the target cannot take it."""

    def judge(self, model: ir.Model) -> Sequence[Verdict]:
        """What the target would do with each layer of any model, as it is."""

    def rules(self, model: ir.Model) -> TargetRules:
        """Which layers of a canonical or cut model the target would keep dense."""

    def times(
        self,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
        /,
    ) -> Mapping[str, LayerTimes]:
        """What the layers of a dense model would take with these zeros, by node; without those nothing is known of.

        Raises:
            PrunecError PC45x: they cannot be measured here.
        """

    def write(self, folder: Path, subject: Subject, options: BuildOptions) -> Artifact:
        """Write the artifact below `folder`, checked."""

    def verify(self, package: Path) -> int | None:
        """Prove the weights of a written artifact again, from its own bytes; how many, None where they have no proof.

        Raises:
            GateError PC525: a weight is not what the package says.
        """


@runtime_checkable
class Timeable(Backend, Protocol):
    """A target whose models have times while a plan is made: measured here, or modelled for a machine elsewhere.

    `is_own_baseline`: what is dense is timed as this target compiles it, not in ONNX Runtime.
    """

    is_own_baseline: bool

    def layer_times(
        self,
        model: ir.Model,
        levels: Sequence[Mapping[str, LayerPattern]],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        cache: Cache | None,
        progress: Callable[[int, int], None],
        /,
    ) -> Sequence[Mapping[str, LayerTimes]]:
        """As `times`, for each of the `levels`, by what whole models are timed with."""

    def write_timed(
        self,
        folder: Path,
        model: ir.Model,
        layers: Mapping[str, LayerPattern],
        shapes: Mapping[str, Sequence[int]] | None,
        /,
    ) -> Path:
        """Compile a dense model with these zeros, by magnitude, only to be timed; what a contender of `kind` loads.

        `shapes`: of its inputs, where the model leaves them open.

        Raises:
            PrunecError PC45x: it cannot be built here.
        """

    def provenance(self) -> str:
        """All that its times depend on beside the model: code, instructions, engine."""

    def machine(self) -> str:
        """What its times are those of, for people."""

    def check_timed(self, threads: int, /) -> None:
        """PrunecError PC440, PC45x: it cannot be built or run here, or not so."""


@runtime_checkable
class Measuring(Timeable, Protocol):
    """A target whose compiled models are timed here. `kind`: by what, a row of `contender.RUNNERS`."""

    @property
    def kind(self) -> str: ...


@runtime_checkable
class Modelling(Timeable, Protocol):
    """A target whose times are modelled: what `write_timed` writes is read by `measure.modelled_shares`."""

    def rest_us(self, model: ir.Model, shapes: Mapping[str, Sequence[int]] | None, /) -> float:
        """What one run of a dense model takes beside the layers of `layer_times`.

        Raises:
            PrunecError PC45x: that cannot be found out here.
        """


@runtime_checkable
class Quantising(Timeable, Protocol):
    """A target whose layers are timed in 8 bits, or in float32 where it is told so."""

    def leaving(self, in_float: Collection[str], /) -> Quantising:
        """The same target where these layers, and no others, are in float32."""

    def between_us(
        self,
        model: ir.Model,
        layers: Collection[str],
        threads: int,
        shapes: Mapping[str, Sequence[int]] | None,
        /,
    ) -> float:
        """What one run of a dense model takes outside its `layers`, in µs: conversions are in it."""


def spell_range(name: str, given: Range) -> str:
    """NAME=1x3:8x3:32x3, as `--shape-range` takes it."""
    return f"{name}={':'.join('x'.join(map(str, shape)) for shape in given)}"


def first_batches(batches: Iterable[Feeds], least: int, samples: int = 0) -> tuple[Feeds, ...]:
    """`least` of them, and where those are too small as many as hold `samples` samples."""
    found, seen = list[Feeds](), 0
    for feeds in batches:
        found.append(feeds)
        seen += batch_size(feeds)
        if len(found) >= least and seen >= samples:
            break
    return tuple(found)


def batch_size(feeds: Feeds) -> int:
    """Of the first input that is no single number."""
    return next((len(array) for array in feeds.values() if array.ndim), 1)


def refuse_tuning(options: BuildOptions, target: str) -> None:
    """Raise PrunecError PC440 where a target that generates no kernels is asked to choose among them."""
    if options.tune != "none":
        message = f"{target} has no kernels of prunec's to choose among"
        raise PrunecError("PC440", message, where="--tune", hint="leave it out, or use --target cpu")
