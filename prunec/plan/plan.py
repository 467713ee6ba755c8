"""The plan: which channels go, why, and for which model. A file that a person can read, edit and replay.

`cut` decides; `kept` and `realised` are derived from it and are worked out again when an edited plan is replayed
(`replay.check_plan`). The bytes are a function of the content: sorted keys, no times, no paths.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from prunec.diagnostics import PrunecError
from prunec.plan.budget import Budget
from prunec.plan.levels import Allocation, Source
from prunec.plan.normalise import Normalise
from prunec.plan.permutation import PermutationPlan
from prunec.plan.recovery import RecoveryPlan
from prunec.plan.structures import DEFAULT_STRUCTURES, Structure

Scope = Literal["layer", "global", "loss"]
Share = Annotated[float, Field(ge=0, le=1)]
Solver = Literal["fast", "balanced", "best", "magnitude", "wanda", "dsnot", "sparsegpt", "admm", "exactobs", "udfc"]
"""How much effort goes into the weights of layers with a pattern, or one solver by name (`prunec.passes.solve`)."""
Precision = Literal["int8", "float32"]
Compensation = Literal["none", "bias", "lsq", "auto"]
"""none: cut only; bias: means of what went move into biases; lsq: least squares; auto: the best on held-out data."""
Why = Literal["ratio", "threshold", "loss", "floor", "rounding", "excluded"]
"""ratio, threshold, loss: what the scope asked for, rounded; floor: the least that may stay; rounding: too narrow for
the channel step; excluded: the user's --include or --exclude keeps it whole."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Brief(_Strict):
    """What is None is left out of the file, but for the fields in `_spelled`."""

    _spelled: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        return {name: value for name, value in document.items() if value is not None or name in self._spelled}


class GroupPlan(_Strict):
    """One group: `cut` are sorted group-local channels, `requested` the share before rounding and floors."""

    id: str
    size: Annotated[int, Field(ge=1)]
    kept: int
    cut: tuple[int, ...]
    requested: Share
    why: Why
    producers: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def _derive_kept(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("size"), int) and isinstance(data.get("cut"), list | tuple):
            return {**data, "kept": data["size"] - len(data["cut"])}
        return data

    @model_validator(mode="after")
    def _check_cut(self) -> GroupPlan:
        if len(set(self.cut)) < len(self.cut):
            raise ValueError(f"{self.id}: a channel is cut twice")
        bad = [i for i in self.cut if not 0 <= i < self.size]
        if bad:
            raise ValueError(f"{self.id}: there is no channel {bad[0]}, the group has 0 to {self.size - 1}")
        if len(self.cut) == self.size:
            raise ValueError(f"{self.id}: all {self.size} channels are cut, at least one has to stay")
        return self

    @field_validator("cut")
    @classmethod
    def _sort_cut(cls, cut: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(cut))

    def keep(self) -> np.ndarray:
        """bool [size]."""
        mask = np.ones(self.size, bool)
        mask[list(self.cut)] = False
        return mask


class BlockPlan(_Strict):
    """One block that goes (`graph.branches`). `error`: relative squared error of the outputs without it alone."""

    name: str
    kind: Literal["branch", "layer"]
    error: float


class WidthPlan(_Strict):
    """The stage of head widths: `fingerprint` is that of the model which the stages before it leave."""

    fingerprint: str
    groups: tuple[GroupPlan, ...]


class LayerPlan(_Brief):
    """One layer: `pattern` is a name that `prunec.patterns.parse` reads, or "dense"; `level` the share that goes.

    `precision`: what it computes in, where the plan decides that.
    """

    node: str
    tensor: str
    pattern: str
    level: Annotated[float, Field(ge=0, lt=1)]
    why: str
    precision: Precision | None = None


class Realised(_Strict):
    """By the cut of channels alone.

    params, flops: share of the dense model's that remains; sparsity: share of the prunable weights that is gone.
    """

    params: Share
    flops: Share
    sparsity: Share


class TimePlan(_Strict):
    """What was measured for a budget of time: the cut model's time as a share of the dense one's.

    `share`: median of paired ratios, with its 95 % interval; `predicted` before it was measured. `models` were timed to
    predict it; `error` and `rank_correlation` are those of predictions for models left out (median relative, Spearman).
    `modelled`: nothing was measured, and all of it is what a model says of `machine`.
    """

    share: float
    ci95: tuple[float, float]
    predicted: float
    dense_ms: float
    threads: int
    machine: str
    modelled: bool = False
    models: int
    error: float
    rank_correlation: float


class DropPlan(_Strict):
    """What was judged for a budget of quality: the drop, and its 90 % confidence bound for other data of the kind.

    Found on held-out samples of `data`, with the compensation that a compile repeats. `trials` models were judged.
    """

    metric: str
    drop: float
    upper: float | None
    data: Literal["synthetic", "calibration", "user"]
    samples: int | None
    trials: int


class PolishPlan(_Strict):
    """What swaps of levels did: relative squared error of the refitted model's outputs, and models `judged`.

    `assembled`: models that were put together from layers that had been solved beforehand, and judged as they were.
    """

    judged: int
    before: float
    after: float
    assembled: int = 0


class EntrantPlan(_Brief):
    """A way to spread what goes that was compared with others at the same time: an allocation of zeros, or a scope.

    `share` of the dense model's time, predicted; `error`: relative squared, of the solved model's outputs on held-out
    data; None where they are not finite.
    """

    way: Allocation | Scope = Field(validation_alias=AliasChoices("way", "allocation"))  # the name in older plans
    share: float
    error: float | None = None


class StepPlan(_Brief):
    """The choice beside the one that was made: by how much predicted loss and share of the dense time would differ.

    `precision`: the layer's there, where that is chosen as well.
    """

    kept: float
    loss: float
    time: float
    precision: Precision | None = None


class QuantisedPlan(_Strict):
    """What 8 bits do to one layer, whatever was chosen.

    `loss`: relative squared error of the dense model's outputs with this layer alone in 8 bits, measured. `saved`:
    share of the dense model's time that the layer takes less than in float32, both without zeros, by its own kernels;
    below 0 where it takes more.
    """

    loss: float
    saved: float


class ChoicePlan(_Brief):
    """Why a group or layer was left this much: what it is predicted to lose, and to save of the dense model's time.

    `kept` and `of`: channels, or shares of the weights, or 0 and 1 for a block. `milder`, `deeper`: the steps on both
    sides; None where there is none. What was decided by hand afterwards is not in it. `precision` and `quantised` are
    there where layers compute in 8 bits, or might.
    """

    name: str
    kept: float
    of: float
    loss: float
    saved: float
    milder: StepPlan | None
    deeper: StepPlan | None
    precision: Precision | None = None
    quantised: QuantisedPlan | None = None
    _spelled: ClassVar[frozenset[str]] = frozenset({"milder", "deeper"})


class Plan(_Strict):
    """See the module. `rounding` is the channel step, `floor` the least share of a group that stays.

    `structures` names the stages (`plan.structures`): `depth` goes first, then the channels of `groups`, then those of
    `head_width`. `fingerprint` is that of the model that `groups` are about; without such a stage, of the dense one.
    `layers` get sparsity patterns after the cut; `pattern` is the one that was asked for ("channel": none). Where they
    do not all get the same, `allocation` says by what and `level` what the mean is; `losses` where those come from that
    an allocation by loss compares. `precision`: int8 or mixed, where times were measured so; then every layer has its
    own.
    `time` is there where the budget is met by timing, `drop` where it is one of quality.
    `contest` (ways to spread what goes at one time, before a search within a drop went on), `polish` and `choices` (why
    each group or layer was left as it is) belong to such plans.
    `permutation` reorders the dense model's channels first; cut channels keep their numbers.
    `compensation` and `samples` (of the calibration data that were used) are what a replay does again; older plans have
    neither, and take the recipe's. `recovery` is there where the refitted model is trained against the dense one.
    """

    schema_version: Literal[1] = 1
    source_sha256: str
    fingerprint: str
    target: str
    pattern: str = "channel"
    solver: Solver | None = None
    allocation: Allocation | None = None
    losses: Source | None = None
    level: Share | None = None
    precision: Literal["int8", "mixed"] | None = None
    criterion: str
    normalise: Normalise
    scope: Scope
    seed: int
    compensation: Compensation | None = None
    samples: Annotated[int, Field(ge=1)] | None = None
    budget: Budget
    rounding: Annotated[int, Field(ge=1)]
    floor: Share
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    structures: tuple[Structure, ...] = DEFAULT_STRUCTURES
    depth: tuple[BlockPlan, ...] = ()
    groups: tuple[GroupPlan, ...]
    head_width: WidthPlan | None = None
    permutation: PermutationPlan | None = None
    layers: tuple[LayerPlan, ...] = ()
    realised: Realised
    time: TimePlan | None = None
    drop: DropPlan | None = None
    contest: tuple[EntrantPlan, ...] = ()
    polish: PolishPlan | None = None
    choices: tuple[ChoicePlan, ...] = ()
    recovery: RecoveryPlan | None = None
    notes: tuple[str, ...]

    @field_validator("groups")
    @classmethod
    def _check_ids(cls, groups: tuple[GroupPlan, ...]) -> tuple[GroupPlan, ...]:
        _refuse_twice(group.id for group in groups)
        return groups

    @field_validator("depth")
    @classmethod
    def _check_blocks(cls, blocks: tuple[BlockPlan, ...]) -> tuple[BlockPlan, ...]:
        _refuse_twice(block.name for block in blocks)
        return blocks

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: tuple[LayerPlan, ...]) -> tuple[LayerPlan, ...]:
        _refuse_twice(layer.node for layer in layers)
        return layers

    @property
    def way(self) -> Allocation | Scope:
        """What spreads what goes: the allocation of zeros, or the scope of a cut."""
        return self.allocation or self.scope

    def keeps(self) -> dict[str, np.ndarray]:
        """Group id → bool mask of the channels that stay, for `Analysis.alive`."""
        return {group.id: group.keep() for group in self.groups}

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What the plan does not have is left out."""
        document: dict[str, Any] = handler(self)
        optional = (
            "depth",
            "head_width",
            "solver",
            "allocation",
            "losses",
            "level",
            "precision",
            "permutation",
            "layers",
            "compensation",
            "samples",
            "time",
            "drop",
            "contest",
            "polish",
            "choices",
            "recovery",
        )
        unused = {name for name in optional if not getattr(self, name)}
        unused |= {"structures"} if self.structures == DEFAULT_STRUCTURES else set()
        return {name: value for name, value in document.items() if name not in unused}

    def to_bytes(self) -> bytes:
        """JSON with one line per field and per list of channels."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
        flat = re.sub(r"\[\s+(-?\d+(?:,\s+-?\d+)*)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
        return (flat + "\n").encode()

    def hash(self) -> str:
        """sha256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            PrunecError PC204: the file cannot be read, is not a plan, or contradicts itself.
        """
        hint = "undo the edit, or write the plan again with prunec plan"
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise PrunecError("PC204", f"the plan cannot be read: {error.strerror}", where=str(path)) from error
        except ValidationError as error:
            raise PrunecError(
                "PC204", f"this is not a valid plan: {_first(error)}", where=str(path), hint=hint
            ) from error


def _refuse_twice(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name} is listed twice")
        seen.add(name)


def _first(error: ValidationError) -> str:
    """The first complaint in words: where in the file, and what."""
    found = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    message = found["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {message}{more}" if place else message + more
