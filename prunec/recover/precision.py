"""The data type in which the passes of a training multiply: float32, or bfloat16 where the processor does so itself.

Under bf16 the forward pass of the model in training runs in `torch.autocast`, and its backward pass with it: products
and convolutions in bfloat16, norms and softmax in float32. Weights, the loss, gradients of weights and the optimiser
stay in float32, and so do the dense model's answers and all that watches or judges a training: what is shipped is
float32.

A processor without the instructions takes longer that way than in float32. Its rounding is not the same either, so a
plan says what its training ran in, and a replay does that or is refused.
"""

from __future__ import annotations

from typing import Any

import torch

from prunec.backends.cpu.isa import cpu_flags
from prunec.diagnostics import PrunecError
from prunec.plan.recovery import RecoveryPlan

_BF16 = frozenset({"avx512_bf16", "amx_bf16"})


def settled(plan: RecoveryPlan) -> RecoveryPlan:
    """`plan` with fp32 or bf16 instead of auto. PrunecError PC347 for bf16 on a processor without it."""
    if plan.precision == "auto":
        return plan.model_copy(update={"precision": "bf16" if has_bf16() else "fp32"})
    if plan.precision == "bf16" and not has_bf16():
        what = "this plan's training ran in bf16" if plan.runs else "bf16 was asked for"
        message = f"{what}, and this processor has neither avx512_bf16 nor amx_bf16: it would be slower than fp32"
        hint = "train anew with --recover-precision fp32, or auto; a replay of bf16 needs such a processor"
        raise PrunecError("PC347", message, where="--recover-precision", hint=hint)
    return plan


def has_bf16() -> bool:
    """Whether the first processor multiplies bfloat16; not where the system does not say."""
    return bool(_BF16 & cpu_flags())


def computed_in(precision: str) -> Any:
    """A context for forward passes of training."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
