"""What a plan says about training what is left against the dense model (`prunec.recover`).

How many steps fit into the minutes is known only once they were timed, so a finished compile writes down what each run
of training did: a replay does the same number of steps again, whatever the machine's speed, and gets the same weights.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RecoveryMethod = Literal["bias", "blocks", "full"]
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


class RecoveryPlan(BaseModel):
    """bias: biases and norms, blocks: block by block, full: end to end as well. `runs` only after a compile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: RecoveryMethod
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_MINUTES
    runs: tuple[RecoveryRun, ...] = ()
