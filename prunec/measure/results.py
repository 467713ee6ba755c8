"""The types of `measurements.json`.

A field that does not apply is None here and absent in the file, never zero. Times are in the unit that the field's
name ends with. Raises pydantic.ValidationError for anything else than a document of this shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["faster", "slower", "no difference shown"]


class Record(BaseModel):
    """Frozen, strict about unknown fields and about NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict with absent fields absent."""
        return self.model_dump(mode="json", exclude_none=True)


class Machine(Record):
    """What ran the models. No host names, no user names, no paths."""

    cpu: str
    logical_cpus: int
    cores: int | None = None
    isa: tuple[str, ...] = ()
    memory_gib: float | None = None
    os: str
    versions: dict[str, str] = Field(default_factory=dict)


class Input(Record):
    """Shape and dtype of one input as it was fed."""

    shape: tuple[int, ...]
    dtype: str


class MeasurementProtocol(Record):
    """How the numbers came about; enough to repeat them."""

    subject: str
    threads: int
    pinned_cpus: tuple[int, ...] | None = None
    inputs: dict[str, Input]
    order: str
    warmup_s: float
    processes: int
    blocks: int
    blocks_requested: int | None = None
    runs_per_block: dict[str, int]
    untimed_runs_per_block: dict[str, int]
    clock: str | None = None
    statistic: str
    interval: str
    seed: int
    load_average_1min: float | None = None


class Times(Record):
    """Latency of one contender over all its timed runs, and what it cost to get there."""

    p50_ms: float
    p90_ms: float
    first_run_ms: float | None = None
    load_ms: float | None = None
    peak_rss_mib: float | None = None


class Speedup(Record):
    """Time of the baseline over time of the subject: above 1 is faster."""

    median: float
    ci95: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """A direction only if the interval excludes 1."""
        low, high = self.ci95
        if low > 1:
            return "faster"
        return "slower" if high < 1 else "no difference shown"


def prefers_onnxruntime(found: Measurements | None, shapes: Mapping[str, tuple[int, ...]] | None = None) -> bool:
    """Whether the compiled model was shown to be slower than the pruned one in ONNX Runtime.

    `shapes`: of the inputs, where it was measured with several; without them the first.
    """
    if found is None or found.protocol.subject != "prunec":
        return False
    others = {} if shapes is None else {_shapes(other.inputs): other.speedup for other in found.shapes or ()}
    speedup = others.get(tuple(sorted((shapes or {}).items())), found.speedup).get("vs_pruned_onnxruntime")
    return speedup is not None and speedup.verdict == "slower"


def slow_shapes(found: Measurements) -> list[str]:
    """Shapes with which the compiled model was shown to be slower than ONNX Runtime, in words."""
    every = [found.protocol.inputs, *(other.inputs for other in found.shapes or ())]
    slow = [_shapes(inputs) for inputs in every if prefers_onnxruntime(found, dict(_shapes(inputs)))]
    return [", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes) for shapes in slow]


def _shapes(inputs: Mapping[str, Input]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((name, own.shape) for name, own in inputs.items()))


class ShapeTimes(Record):
    """The same contenders on inputs of another shape."""

    inputs: dict[str, Input]
    contenders: dict[str, Times]
    speedup: dict[str, Speedup]


class LayerTiming(Record):
    """One layer in the sparse and in the dense kernel of the same code generator."""

    name: str
    pattern: str
    density: float
    dense_us: float | None = None
    sparse_us: float | None = None
    gflops_nonzero: float | None = None
    peak_share: float | None = None
    chosen: str


class Measurements(Record):
    """The whole of `measurements.json`. `distributions` holds the block medians in ms, paired by position.

    `shapes`: further shapes of the inputs that the model was compiled for.
    """

    machine: Machine
    protocol: MeasurementProtocol
    contenders: dict[str, Times]
    speedup: dict[str, Speedup]
    layers: tuple[LayerTiming, ...] | None = None
    shapes: tuple[ShapeTimes, ...] | None = None
    distributions: dict[str, tuple[float, ...]]

    def with_layers(self, layers: Sequence[LayerTiming]) -> Measurements:
        """The same measurements beside a table of layers."""
        return self.model_copy(update={"layers": tuple(layers)})

    def with_shapes(self, others: Sequence[Measurements]) -> Measurements:
        """The same measurements beside those on inputs of other shapes."""
        shapes = (ShapeTimes(inputs=o.protocol.inputs, contenders=o.contenders, speedup=o.speedup) for o in others)
        return self.model_copy(update={"shapes": tuple(shapes)})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measurements:
        """Read back what `to_json` wrote."""
        return cls.model_validate(dict(document))
