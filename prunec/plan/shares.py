"""Shares that a cut realises, as plans and reports state them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from prunec.graph import Analysis, Group
from prunec.graph.cost import model_macs, parameter_count
from prunec.graph.shapes import dims
from prunec.plan.cost_model import Cost, CostModel
from prunec.plan.plan import Realised

DIGITS = 6


def prunable_weights(model: ir.Model, groups: Iterable[Group]) -> frozenset[str]:
    """Tensors of rank 2 and more that make, consume or carry (depthwise) a channel of `groups`: the prunable layers."""
    tensors = {m.tensor for g in groups for m in g.members if m.input_index in (1, 3) or m.role != "carrier"}
    return frozenset(t for t in tensors if len(dims(model.graph.initializers[t]) or ()) >= 2)


def own_weights(prunable: Iterable[str], model: ir.Model) -> frozenset[str]:
    """Those of the tensors that `model` has."""
    return frozenset(name for name in prunable if name in model.graph.initializers)


def baseline_cost(model: ir.Model, prunable: Iterable[str]) -> Cost:
    """What a whole model costs."""
    sizes = (dims(model.graph.initializers[name]) or () for name in own_weights(prunable, model))
    weights = sum(math.prod(d for d in shape if isinstance(d, int)) for shape in sizes)
    return Cost(parameter_count(model), model_macs(model), weights)


def realised(costs: CostModel, analysis: Analysis, alive: np.ndarray) -> Realised:
    """Shares of the dense model, rounded to 6 digits."""
    dense, cut = costs.evaluate(np.ones(analysis.channel_count, bool)), costs.evaluate(alive)
    return shares(cut, dense)


def shares(cut: Cost, dense: Cost) -> Realised:
    return Realised(
        params=_share(cut.params, dense.params),
        flops=_share(cut.macs, dense.macs),
        sparsity=round(1 - _share(cut.weights, dense.weights), DIGITS),
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, DIGITS) if whole else 1.0
