"""How far a tensor is from what the dense model gives.

    relative   ‖y − t‖² / ‖t − mean t‖²     everything; the mean is over the samples, so that constants weigh nothing
    classes    KL(p_dense ‖ p)              where an output is class scores, besides

Class scores come out of a Softmax or LogSoftmax, or are the logits that a product leaves: two or three axes, the last
one of at least `CLASSES`. Logits of a regression would be taken for such too, which is why the relative error is always
there: KL alone does not see a shift of all scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import onnx_ir as ir
import torch

from prunec.graph.shapes import dims

Kind = Literal["probabilities", "log-probabilities", "logits", "plain"]
CLASSES = 8
_PASSES = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Add"})
_TINY = 1e-9


def kinds(model: ir.Model) -> dict[str, Kind]:
    """Every floating-point output and what it is, by the node that makes it."""
    floats = [value for value in model.graph.outputs if value.dtype == ir.DataType.FLOAT]
    return {value.name or "": _kind(value) for value in floats}


def _kind(value: ir.Value) -> Kind:
    node = value.producer()
    while node is not None and node.op_type in _PASSES and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    made_by = "" if node is None else node.op_type
    shape = dims(value) or ()
    axis = 0 if node is None else int(node.attributes.get_int("axis", -1))
    if made_by in ("Softmax", "LogSoftmax"):
        is_last = axis in (-1, len(shape) - 1)
        return ("probabilities" if made_by == "Softmax" else "log-probabilities") if is_last else "plain"
    scores = isinstance(shape[-1], int) and shape[-1] >= CLASSES if len(shape) in (2, 3) else False
    return "logits" if made_by in ("Gemm", "MatMul") and scores else "plain"


def output_loss(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], outputs: Mapping[str, Kind]
) -> torch.Tensor:
    """Mean over the outputs: relative squared error, and the divergence where they are class scores."""
    losses = []
    for name, kind in outputs.items():
        loss = relative(found[name], wanted[name])
        losses.append(loss if kind == "plain" else loss + divergence(found[name], wanted[name], kind))
    return torch.stack(losses).mean()


def relative(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """‖y − t‖² / ‖t − mean t‖²; a target without variance, as that of a single sample, is not centred."""
    return (found - wanted).square().sum() / spread_of(wanted)


def spread_of(wanted: torch.Tensor) -> torch.Tensor:
    """What squared errors are divided by."""
    spread = (wanted - wanted.mean(0, keepdim=True)).square().sum() if len(wanted) > 1 else wanted.square().sum()
    whole = wanted.square().sum()
    return torch.where(spread > 1e-6 * whole, spread, whole) + _TINY


def divergence(found: torch.Tensor, wanted: torch.Tensor, kind: Kind) -> torch.Tensor:
    """KL(p_dense ‖ p), the mean over all rows of scores."""
    ours, theirs = (_logs(tensor, kind) for tensor in (found, wanted))
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()


def _logs(scores: torch.Tensor, kind: Kind) -> torch.Tensor:
    if kind == "probabilities":
        return scores.clamp_min(1e-8).log()
    return scores if kind == "log-probabilities" else torch.log_softmax(scores, -1)
