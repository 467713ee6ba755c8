"""What the public functions return: frozen records whose `to_json()` is what the command prints with --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from prunec.api.record import Result
from prunec.diagnostics import Diagnostic, GateError
from prunec.measure.modelled import Modelled
from prunec.measure.results import Measurements
from prunec.package.manifest import Manifest
from prunec.plan.plan import DropPlan, EntrantPlan, Plan, Precision, QuantisedPlan, StepPlan, TimePlan
from prunec.verify.records import VerificationRecord

if TYPE_CHECKING:
    from prunec.verify.checker import Outcome


class WarningInfo(Result):
    """A finding that stopped nothing."""

    code: str
    message: str
    where: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, found: Diagnostic) -> WarningInfo:
        return cls(code=found.code, message=found.message, where=found.where, hint=found.hint)


class MemberInfo(Result):
    """One axis of one weight, as one node uses it."""

    tensor: str
    axis: int
    node: str
    role: Literal["producer", "consumer", "carrier"]


class PinInfo(Result):
    """Why a group may not be cut."""

    code: str
    node: str
    reason: str


class GroupInfo(Result):
    """`kind` is "class" in JSON: A exact, B constant channels, C a statistic runs over the channels."""

    id: str
    size: int
    kind: Literal["A", "B", "C"]
    members: tuple[MemberInfo, ...]
    cost_share: float
    pinned: PinInfo | None

    def to_json(self) -> dict[str, Any]:
        document = self.model_dump(mode="json")  # "pinned": null says that the group is free
        return {("class" if key == "kind" else key): value for key, value in document.items()}


class BlockInfo(Result):
    """A block that can be removed whole: the value `output` may be `input` instead."""

    name: str
    kind: Literal["branch", "layer"]
    input: str
    output: str


class ValueInfo(Result):
    """A graph input or output; a dimension is a number, a symbol, or None where nothing is known."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class Inspection(Result):
    """A model and its channel groups. Nodes are those of the canonical model, which the groups are about."""

    model: str
    sha256: str
    nodes: int
    operators: dict[str, int]
    parameters: int
    macs: int
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    groups: tuple[GroupInfo, ...]
    warnings: tuple[WarningInfo, ...]
    blocks: tuple[BlockInfo, ...] = ()

    def to_json(self) -> dict[str, Any]:
        names = ("inputs", "outputs", "groups", "warnings", *(("blocks",) if self.blocks else ()))
        parts = {name: [record.to_json() for record in getattr(self, name)] for name in names}
        return {**self.model_dump(mode="json", exclude={*parts, "blocks"}), **parts}


class LayerPart(Result):
    """What a layer has to do with one group: it makes, uses or carries its channels."""

    group: str
    size: int
    does: Literal["makes", "uses", "carries", "passes"]
    tensors: tuple[str, ...]
    coupled_with: tuple[str, ...]
    used_by: tuple[str, ...]
    cost_share: float
    pinned: PinInfo | None

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class Explanation(Result):
    """Everything about one layer: what it costs, which channels pass through it, and what of them can be cut."""

    model: str
    layer: str
    op_type: str
    macs: int
    macs_share: float
    parameters: int
    input_shapes: tuple[str, ...]
    output_shapes: tuple[str, ...]
    parts: tuple[LayerPart, ...]
    verdict: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        document = self.model_dump(mode="json", exclude={"parts"})
        return {**document, "parts": [part.to_json() for part in self.parts]}


class Decision(Result):
    """What a plan leaves of one group or layer, and why: `kept` of `of` channels, or shares of the weights.

    `loss` is predicted (relative squared error of the outputs with this alone), `saved` a predicted share of the dense
    model's time; both are there where the plan was made for a time. `precision`: of a layer, where the plan decides
    that; `quantised`: what 8 bits do to it, whatever was chosen.
    """

    name: str
    what: str
    tensors: tuple[str, ...]
    kept: float
    of: float
    why: str
    loss: float | None = None
    saved: float | None = None
    milder: StepPlan | None = None
    deeper: StepPlan | None = None
    precision: Precision | None = None
    quantised: QuantisedPlan | None = None


class PlanExplanation(Result):
    """Every decision of a plan. `losses`: where its predicted losses come from, in words; None where it has none.

    `time`, `drop`: what was measured and judged for the whole plan, where it was made for a time or a drop. `contest`:
    ways to spread what goes that were compared at one time; `allocation` of zeros, `scope` of a cut: the one that was
    taken in the end.
    """

    plan: str
    target: str
    budget: str
    losses: str | None = None
    time: TimePlan | None = None
    drop: DropPlan | None = None
    allocation: str | None = None
    scope: str | None = None
    contest: tuple[EntrantPlan, ...] | None = None
    decisions: tuple[Decision, ...]


class TargetLayer(Result):
    """One layer as a target would treat it. `sparse_now`: its weight has the pattern already.

    `eligible` is a rule of the target, `worthwhile` a prediction from shapes; `why_not` and `change` say what stands in
    the way and what would help. `runs` of the pattern in the weight, `valid` those that obey.
    """

    node: str
    op_type: str
    tensor: str
    axis: int | None = None
    inputs: int | None = None
    outputs: int | None = None
    positions: int = 1
    rows: int | None = None
    macs: int
    runs: int | None = None
    valid: int | None = None
    zeros: float | None = None
    sparse_now: bool
    eligible: bool
    worthwhile: bool
    why_not: str | None = None
    change: str | None = None


class TargetExplanation(Result):
    """What a target would do with every layer of a model as it is, in graph order."""

    model: str
    target: str
    layers: tuple[TargetLayer, ...]
    eligible: int
    worthwhile: int
    sparse_now: int


class TrialInfo(Result):
    """One keep set of the proof: the largest relative error in each precision, and the seed of the inputs.

    `compared` says whether the model's outputs showed the cut, or the outputs of consumers had to be compared.
    """

    trial: str
    seed: int
    float32: float
    float64: float | None = None
    float64_skipped: str | None = None
    compared: str = "outputs"

    @classmethod
    def of(cls, outcome: Outcome) -> TrialInfo:
        return cls(
            trial=outcome.trial,
            seed=outcome.seed,
            float32=outcome.float32,
            float64=outcome.float64,
            float64_skipped=outcome.float64_skipped,
            compared=outcome.compared,
        )


class Compiled(Result):
    """What a compile found. Without `out` it was a dry run: there is a plan and nothing else."""

    target: str
    plan: Plan
    out: str | None = None
    manifest: Manifest | None = None
    verification: VerificationRecord | None = None
    measurements: Measurements | None = None
    modelled: Modelled | None = None
    proof: tuple[TrialInfo, ...] = ()
    layers: tuple[dict[str, Any], ...] = ()
    bytes_before: int | None = None
    bytes_after: int | None = None
    command: str = ""
    warnings: tuple[WarningInfo, ...] = ()

    def to_json(self) -> dict[str, Any]:
        document = self.model_dump(mode="json", exclude_none=True)
        if self.manifest is not None:
            document["manifest"] = self.manifest.to_json()
        return document


class Refused(GateError):
    """A gate said no: nothing was written. `compiled` is what was found, `refusals` every gate that said no."""

    def __init__(self, refusals: Sequence[GateError], compiled: Compiled) -> None:
        first = refusals[0].diagnostic
        super().__init__(first.code, first.message, where=first.where, hint=first.hint)
        self.refusals = tuple(refusals)
        self.compiled = compiled.model_copy(update={"out": None})
