"""The order of the canonicalisation passes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    RemoveInitializersFromInputsPass,
    RemoveUnusedNodesPass,
    TopologicalSortPass,
)

from prunec.passes.canonicalise.channel_shuffle import ChannelShuffle
from prunec.passes.canonicalise.evaluate import Evaluate
from prunec.passes.canonicalise.explicit_scale import ExplicitScale
from prunec.passes.canonicalise.fold_batchnorm import FoldBatchNorm
from prunec.passes.canonicalise.fold_bias import FoldBias
from prunec.passes.canonicalise.lift_constants import LiftConstants
from prunec.passes.canonicalise.matmul_to_gemm import MatMulToGemm
from prunec.passes.canonicalise.names import UniqueNames
from prunec.passes.canonicalise.opset import RaiseOpset
from prunec.passes.canonicalise.remove_noops import RemoveNoops
from prunec.passes.canonicalise.share_constants import ShareConstants


def canonicalise(model: ir.Model, *, gemm: bool = False, fold: bool = True) -> ir.Model:
    """A new model, equal in value to `model`, in the form every other part expects.

    Afterwards: unique non-empty names for all nodes and values; no functions; no Constant or Identity nodes, but where
    the output of a graph or branch is itself a constant, an input or another output; weights are initializers, shared
    with `model` and not copied; constants folded, once each; shapes on every value where they can be inferred, and no
    run-time shape computation that depends on static dimensions.

    Without `fold` batch norms and additions stay nodes of their own: no weight is scaled or summed with another one.

    Warnings are in `graph.meta[opset.WARNINGS]`, BN scales in `meta[fold_batchnorm.BN_SCALE]` of weight values; both
    survive `clone()`, not a file.
    """
    result = model.clone()
    for step in _steps(gemm, fold):
        result = step(result).model
    return result


def _steps(gemm: bool, fold: bool) -> list[ir.passes.PassBase]:
    return [
        InlinePass(),
        TopologicalSortPass(),
        RemoveInitializersFromInputsPass(),
        RaiseOpset(),
        UniqueNames(),
        LiftConstants(),
        RemoveNoops(),
        ShareConstants(),
        RemoveUnusedNodesPass(),
        Evaluate(),
        RemoveNoops(),
        *([FoldBias(), FoldBatchNorm()] if fold else []),
        ChannelShuffle(),
        ExplicitScale(),
        *([MatMulToGemm()] if gemm else []),
        RemoveUnusedNodesPass(),
        UniqueNames(),
    ]
