"""What a plan says about training what is left against the dense model (`prunec.recover`).

How many steps fit into the minutes is known only once they were timed, so a finished compile writes down what each run
of training did: a replay does the same number of steps again, whatever the machine's speed, and gets the same weights.

In several rounds a part goes, the rest is trained, and what goes next is decided on what came out. A finished compile
writes down what was gone after every round but the last, whose cut is the plan's own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

RecoveryMethod = Literal["bias", "blocks", "full"]
RecoveryPrecision = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[RecoveryPrecision, ...] = ("auto", "fp32", "bf16")
METHODS: tuple[RecoveryMethod, ...] = ("bias", "blocks", "full")
DEFAULT_MINUTES = 20.0


class RecoveryRun(BaseModel):
    """One run of training: its schedule is over `of` steps, `done` were made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Annotated[int, Field(ge=1)]
    done: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _check_done(self) -> RecoveryRun:
        if self.done > self.of:
            raise ValueError(f"{self.done} steps of {self.of} were made")
        return self


NO_STEPS = (RecoveryRun(of=1, done=0),)
"""Of a training that was undone, or not begun: a replay has none of it either."""


class RoundLayer(BaseModel):
    """The pattern that a layer has after a round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: str
    tensor: str
    pattern: str
    level: Annotated[float, Field(ge=0, lt=1)]


class RoundPlan(BaseModel):
    """One round: the channels of the dense model's groups that are gone after it, and how the rest was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cut: dict[str, tuple[Annotated[int, Field(ge=0)], ...]]
    layers: tuple[RoundLayer, ...] = ()
    runs: tuple[RecoveryRun, ...]


class RecoveryPlan(BaseModel):
    """bias: biases and norms, blocks: block by block, full: end to end as well.

    `precision`: of the forward passes; auto is bf16 where the processor multiplies it, and what it was after a compile.
    `soup`: trainings whose mean is taken, where it is better. `steps`: rounds of pruning and training that were asked
    for. Only after a compile: `runs` of the last one, `rounds` before it (fewer than `steps` − 1 where training was
    interrupted). `quantised`: those through the quantisers of a model that was in 8 bits then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: RecoveryMethod
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_MINUTES
    precision: RecoveryPrecision = "fp32"
    soup: Annotated[int, Field(ge=1)] = 1
    steps: Annotated[int, Field(ge=1)] = 1
    rounds: tuple[RoundPlan, ...] = ()
    runs: tuple[RecoveryRun, ...] = ()
    quantised: tuple[RecoveryRun, ...] = ()

    @model_serializer(mode="wrap")
    def _without_rounds(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One round, one training, or float32 is not said."""
        document: dict[str, Any] = handler(self)
        if self.precision == "fp32":
            del document["precision"]
        if self.soup == 1:
            del document["soup"]
        if self.steps == 1:
            del document["steps"], document["rounds"]
        if not self.quantised:
            del document["quantised"]
        return document
