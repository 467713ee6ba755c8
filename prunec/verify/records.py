"""The types of `verification.json`.

A record that does not apply is None here and absent in the file, never zero. Errors are maximal relative errors:
max |a - b| / max |b| over an output. Raises pydantic.ValidationError for anything else than a document of this shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen, strict about unknown fields and about NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict with absent fields absent."""
        return self.model_dump(mode="json", exclude_none=True)


class GroupError(Record):
    """One group cut alone: masked against sliced."""

    id: str
    kind: Literal["A", "B", "C"] | None = None
    max_rel: float
    passed: bool


class ExactnessRecord(Record):
    """`masked.onnx` against `cut.onnx`, over all cut groups and, where it was done, group by group.

    `class_a_max_rel` is the error that decided, at most `tolerance`: in float32, or in float64 where float32 rounding
    alone exceeds its tolerance (`decided_in`). `float32_max_rel` and `float64_max_rel` are what each showed;
    `float64_skipped` says why the second is not there.
    `blocks_checked`: whole blocks that were removed, against the model in which they contribute zero.
    `seeds` drew the inputs and random keep sets; `compared` says which values, where the outputs do not show the cut.
    """

    class_a_max_rel: float
    groups_checked: int
    passed: bool
    tolerance: float | None = None
    decided_in: Literal["float32", "float64"] | None = None
    float32_max_rel: float | None = None
    float64_max_rel: float | None = None
    float64_skipped: str | None = None
    seeds: tuple[int, ...] | None = None
    compared: str | None = None
    groups: tuple[GroupError, ...] | None = None
    blocks_checked: int | None = None


class LoweringRecord(Record):
    """The target's artifact against the pruned ONNX model in ONNX Runtime.

    `l2_rel`: ‖y − y'‖/‖y‖ of the worst output, there where it is what `tolerance` bounds; else that is `max_rel`.
    `decided_in` float64: ONNX Runtime disagreed, and `max_rel` is against the same graph evaluated in float64, as is
    `float64_max_rel`. `float32_max_rel` is against ONNX Runtime, and `reference_float64_max_rel` ONNX Runtime's own
    error; both are absent where integers differ, which is no distance.
    """

    max_rel: float
    l2_rel: float | None = None
    tolerance: float
    passed: bool
    decided_in: Literal["float32", "float64"] | None = None
    float32_max_rel: float | None = None
    float64_max_rel: float | None = None
    reference_float64_max_rel: float | None = None

    @property
    def bounds(self) -> Literal["max_rel", "l2_rel"]:
        """Which error `tolerance` is about."""
        return "max_rel" if self.l2_rel is None else "l2_rel"

    @property
    def error(self) -> float:
        """That error."""
        return self.max_rel if self.l2_rel is None else self.l2_rel


class QualityRecord(Record):
    """What pruning cost. `drop` = dense - pruned for a metric where more is better.

    `drop_upper`: 90 % confidence bound on it for other data of the same kind, where it is a mean over samples; of a
    metric of the user's only while a plan is made for a drop.
    """

    metric: str
    dense: float
    pruned: float
    drop: float
    drop_upper: float | None = None
    data: Literal["synthetic", "calibration", "user"]
    samples: int | None = None
    others: dict[str, float] | None = None


class SparsityRecord(Record):
    """Shares in 0..1 of the dense model that are gone: of its parameters, of its multiply-accumulates."""

    requested: float | None = None
    realised_params: float
    realised_flops: float


class CompensationRecord(Record):
    """How one layer made up for its lost inputs: relative error of its output on held-out data, before and after."""

    layer: str
    method: str
    error_before: float
    error_after: float


class RecoveryRunRecord(Record):
    """One run of training: `done` of `of` steps; the watched error (a loss) before and of the state that was kept."""

    name: str
    of: int
    done: int
    error_before: float
    error_after: float
    stopped: str


class TrainingMetric(Record):
    """A metric's name, and its numbers on the model before training and after it."""

    name: str
    before: float
    after: float


class RecoveryRoundRecord(Record):
    """The training of one round of `--steps`: as of `RecoveryRecord`. `trained`: whether a replay had steps to make."""

    name: str
    kept: bool
    trained: bool = True
    error_before: float
    error_after: float | None = None
    metric: TrainingMetric | None = None


class RecoveryRecord(Record):
    """What training against the dense model did. `kept`: whether its result is in the package.

    Errors are ‖y − y_dense‖/‖y_dense‖ over the outputs on held-out data, before and after training; after is None where
    training made them infinite or NaN. `precision`: what its forward passes multiplied in, fp32 or bf16. `metric`: the
    user's, whose numbers without the training and with it decided. With `--steps` errors and metric are those of the
    last of the `rounds`, and `kept` says whether any was.
    """

    method: str
    precision: str = "fp32"
    kept: bool
    error_before: float
    error_after: float | None = None
    samples: int
    parameters: int
    minutes: float
    runs: tuple[RecoveryRunRecord, ...]
    metric: TrainingMetric | None = None
    rounds: tuple[RecoveryRoundRecord, ...] | None = None


class PatternRecord(Record):
    """One layer with a sparsity pattern: what was counted in its weight, and how it was solved.

    `units` are N:M groups, blocks, kernels or single weights, `valid` those that obey; `zeros` a share of the weights.
    Errors are relative squares: `error_fit` and `error_held_out` of the layer's own outputs, `error_plain` (mask only)
    and `error` behind its activation on held-out data.
    """

    layer: str
    tensor: str
    pattern: str
    level: float
    units: int
    valid: int
    zeros: float
    passed: bool
    method: str | None = None
    damping: float | None = None
    error_fit: float | None = None
    error_held_out: float | None = None
    error_plain: float | None = None
    error: float | None = None
    notes: tuple[str, ...] | None = None


class OrderRecord(Record):
    """One group whose channels were reordered: how many moved, and what that was worth (`plan.permutation`)."""

    id: str
    moved: int
    kept_before: float
    kept_after: float
    error_before: float
    error_after: float


class PermutationRecord(Record):
    """Reordered channels, and the reordered model against the dense one (errors as in `ExactnessRecord`)."""

    groups: tuple[OrderRecord, ...]
    float32_max_rel: float
    float64_max_rel: float | None = None
    float64_skipped: str | None = None
    seeds: tuple[int, ...]
    passed: bool


class PatternsRecord(Record):
    """All layers with a pattern; `zeros`: share of all floating-point values in the model's constants."""

    layers: tuple[PatternRecord, ...]
    zeros: float
    passed: bool
    permutation: PermutationRecord | None = None

    def with_solved(self, earlier: PatternsRecord) -> PatternsRecord:
        """What was counted here, beside how `earlier` says that the layers were solved."""
        counted = {"units", "valid", "zeros", "passed"}
        own = {layer.layer: layer.model_dump(include=counted) for layer in self.layers}
        layers = tuple(layer.model_copy(update=own[layer.layer]) for layer in earlier.layers)
        return self.model_copy(update={"layers": layers})


class DenseLayer(Record):
    """A layer with weights that does not run on sparse kernels, and why."""

    name: str
    reason: str


class SmokeRecord(Record):
    """TensorRT-RTX parsed the graph and built it ahead of time: that it is accepted, nothing about kernels or speed."""

    tool: str
    architectures: tuple[str, ...]
    passed: bool
    errors: tuple[str, ...] = ()


class SemiStructuredRecord(Record):
    """Whether PyTorch's own sparse matrices can hold a planned weight, as `parameter` of the exported program.

    `turned`: stored as [inputs, outputs]. `libraries` are those whose multiples of rows and columns it meets.
    """

    name: str
    parameter: str | None = None
    turned: bool | None = None
    libraries: tuple[str, ...] = ()
    why_not: str | None = None


class KernelsRecord(Record):
    """What TensorRT did on a GPU. `found` and `chosen` as its log says; `tactics` by node, as the inspector says.

    `kept_dense`: planned layers whose dense kernels were faster. A result, not a failure.
    """

    gpu: str
    compute_capability: str
    tensorrt: str
    found: int | None = None
    chosen: int | None = None
    sparse: tuple[str, ...]
    kept_dense: tuple[str, ...]
    unknown: tuple[str, ...]
    tactics: dict[str, str]
    max_rel: float


class TensorRTRecord(Record):
    """A package for TensorRT. Layers by node name; `executed`: whether engines were built and run.

    `weights_proved` were counted, compressed and decompressed bit for bit, and multiplied (`product_max_rel`).
    `fp32_islands`: how many nodes stay FP32, by reason.
    """

    planned_sparse: tuple[str, ...]
    eligible: tuple[str, ...]
    left_dense: tuple[DenseLayer, ...]
    executed: bool
    precision: str
    fp32_islands: dict[str, int]
    weights_proved: int
    product_max_rel: float
    semi_structured: tuple[SemiStructuredRecord, ...] | None = None
    smoke: SmokeRecord | None = None
    kernels: KernelsRecord | None = None


class QuantisationRecord(Record):
    """A model in 8 bits. `layers` by node name; `left_float`: those that stay, with the reason.

    `values` activations have a range each, found by `rules` (how many by which). `error`: ‖int8 − float‖ / ‖float‖ of
    the outputs on held-out data, both pruned; `error_min_max` the same with the widest ranges and no correction.
    `rounding`: how many layers' weights were rounded by which method. `error_nearest`, `error_swept`: the outputs
    against the dense model's, with weights at their nearest values, and rounded on what the quantised layers before
    them give (with a pattern the smaller one of two: with zeros found anew, and with those that there were). The
    smaller one was taken. `recovery`: training through the
    quantisers after that, its errors those of the model in 8 bits.
    """

    precision: Literal["int8"]
    weight_bits: int
    layers: tuple[str, ...]
    left_float: dict[str, str] | None = None
    values: int
    rules: dict[str, int]
    has_corrected_biases: bool
    error: float
    error_min_max: float
    rounding: dict[str, int] | None = None
    error_nearest: float | None = None
    error_swept: float | None = None
    recovery: RecoveryRecord | None = None


class VerificationRecord(Record):
    """The whole of `verification.json`."""

    exactness: ExactnessRecord | None = None
    lowering: LoweringRecord | None = None
    quality: QualityRecord | None = None
    sparsity: SparsityRecord | None = None
    compensation: tuple[CompensationRecord, ...] | None = None
    recovery: RecoveryRecord | None = None
    patterns: PatternsRecord | None = None
    quantisation: QuantisationRecord | None = None
    tensorrt: TensorRTRecord | None = None

    @property
    def passed(self) -> bool:
        """True if something was checked and nothing said no."""
        verdicts = [record.passed for record in (self.exactness, self.lowering, self.patterns) if record is not None]
        return bool(verdicts) and all(verdicts)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> VerificationRecord:
        """Read back what `to_json` wrote."""
        return cls.model_validate(dict(document))
