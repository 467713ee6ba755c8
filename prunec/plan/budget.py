"""How much is to go, in the ways a user can say it.

counted on the model:
sparsity    at least this share of the weights of the prunable layers is gone
params      at most this share of the dense model's parameters remains
flops       at most this share of the dense model's multiply-accumulates remains
size-mb     model.onnx has at most this many megabytes (10^6 bytes)
channels    this share of every group's channels is gone (rounded to what the target likes)

by times, measured or modelled for the target:
speedup     at least this many times as fast as the dense model
latency-ms  one run takes at most this many milliseconds
max-drop    the quality drops by at most this, in its own unit; as fast as that allows
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from prunec.diagnostics import PrunecError

if TYPE_CHECKING:
    from prunec.plan.cost_model import Cost

BudgetKind = Literal["sparsity", "params", "flops", "channels", "speedup", "latency-ms", "max-drop", "size-mb"]
WORDS: dict[BudgetKind, str] = {
    "sparsity": "weights of the prunable layers",
    "params": "parameters",
    "flops": "FLOPs",
    "channels": "channels",
}
"""What kinds with a share as their value are about."""
TIMES: tuple[BudgetKind, ...] = ("speedup", "latency-ms")
NUMBERS: tuple[BudgetKind, ...] = (*TIMES, "max-drop", "size-mb")
"""Kinds whose value is no share."""


class Budget(BaseModel):
    """A kind and its value.

    sparsity and channels in [0, 1), params and flops in (0, 1], a speed-up above 1, a latency and a size above 0, a
    drop from 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: BudgetKind
    value: float

    @classmethod
    def of(cls, kind: BudgetKind, value: float) -> Budget:
        """A checked budget.

        Raises:
            PrunecError PC208: the value is out of range.
        """
        if kind in NUMBERS:
            cls._check_number(kind, value)
            return cls(kind=kind, value=float(value))
        goes = kind in ("sparsity", "channels")
        if not (0 <= value < 1 if goes else 0 < value <= 1):
            meaning = f"the share of the {WORDS[kind]} that {'goes' if goes else 'remains'}"
            span = "from 0 up to but not including 1" if goes else "above 0 and up to 1"
            hint = f"--{kind} 0.5 {'removes' if goes else 'keeps at most'} half of them"
            raise PrunecError("PC208", f"{kind} {value:g}: {meaning} lies {span}", where=f"--{kind}", hint=hint)
        return cls(kind=kind, value=float(value))

    @staticmethod
    def _check_number(kind: BudgetKind, value: float) -> None:
        if kind == "speedup" and not 1 < value < float("inf"):
            message, hint = "a speed-up lies above 1", "--speedup 2 halves the time of one run"
        elif kind == "latency-ms" and not 0 < value < float("inf"):
            message, hint = "a latency lies above 0", "--latency-ms 5 allows 5 ms for one run"
        elif kind == "size-mb" and not 0 < value < float("inf"):
            message, hint = "a size lies above 0", "--size-mb 5 allows 5 000 000 bytes"
        elif kind == "max-drop" and not 0 <= value < float("inf"):
            message, hint = "a drop is 0 or more", "--max-drop 0.01 allows the quality to fall by 0.01"
        else:
            return
        raise PrunecError("PC208", f"{kind} {value:g}: {message}", where=f"--{kind}", hint=hint)

    @property
    def is_time(self) -> bool:
        """Whether it names a time."""
        return self.kind in TIMES

    @property
    def is_measured(self) -> bool:
        """Whether it is met by measuring, not by counting."""
        return self.is_time or self.kind == "max-drop"

    def remaining(self, cost: Cost, dense: Cost) -> float:
        """What remains of what this budget counts: megabytes of weights, else a share of `dense`.

        Not for "channels" and what is measured.
        """
        if self.kind == "size-mb":
            return cost.bytes / 1e6
        pair = {
            "sparsity": (cost.weights, dense.weights),
            "params": (cost.params, dense.params),
            "flops": (cost.macs, dense.macs),
        }[self.kind]
        return pair[0] / pair[1] if pair[1] else 1.0

    def limit(self) -> float:
        """Most that may remain of what is counted."""
        return 1 - self.value if self.kind in ("sparsity", "channels") else self.value

    def time_limit(self, dense_ms: float) -> float:
        """Largest share of the dense model's time, for a budget of time."""
        return 1 / self.value if self.kind == "speedup" else self.value / dense_ms

    def is_met(self, cost: Cost, dense: Cost) -> bool:
        """Exact up to the rounding of the share itself (1e-12)."""
        return self.remaining(cost, dense) <= self.limit() + 1e-12
