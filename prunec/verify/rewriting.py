"""Check of canonicalisation: the canonical model answers what the source does, up to rounding.

    ‖y_canonical − y_source‖ ≤ tolerance · ‖y_source‖        for every floating-point output, on seeded random inputs

Folding a batch norm or a shape is exact in real numbers only, so the tolerance is that of a network's rounding and not
of one operator's. An output that a sigmoid made is compared in front of it where it differs: random inputs can leave it
at 1e-7, behind the difference of large numbers, and then its own relative error says nothing. Integer outputs (indices
of the largest score, say) may flip on ties and are not judged; neither is a model that draws random numbers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import GateError
from prunec.verify.float64 import has_half_precision
from prunec.verify.inputs import Feeds, first_that_runs
from prunec.verify.metrics import Agreement, is_inexact
from prunec.verify.once import answers
from prunec.verify.ort_errors import ORT_ERRORS

TOLERANCE = 1e-3
HALF_TOLERANCE = 3e-2
_RANDOM = frozenset({"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"})
_SATURATING = frozenset({"Sigmoid", "Tanh", "Softmax"})


def check_rewriting(
    source: ir.Model, canonical: ir.Model, *, seed: int, threads: int = 1, spare: Feeds | None = None
) -> float:
    """The relative error of the worst output. `spare` are inputs for a model that refuses random ones.

    Raises:
        GateError PC506: it is above the tolerance. PrunecError PC504, PC505: the source does not run.
    """
    if any(node.op_type in _RANDOM or node.op_type == "RandomUniformLike" for node in source.graph):
        return 0.0
    feeds, wanted = _source_answers(source, seed, threads, spare)
    tolerance = HALF_TOLERANCE if has_half_precision(source) else TOLERANCE
    worst = _worst_error(wanted, answers(canonical, feeds, threads))
    if worst > tolerance and _saturated_outputs(source) == _saturated_outputs(canonical) != {}:
        peeled = [answers(_without_saturation(model), feeds, threads) for model in (source, canonical)]
        worst = _worst_error(*peeled)
    if worst > tolerance:
        raise GateError(
            "PC506",
            f"the canonical model differs from the source by {worst:.1e}, more than {tolerance:.0e}",
            hint="this is a bug in a rewrite: please report the model",
        )
    return worst


def _source_answers(
    source: ir.Model, seed: int, threads: int, spare: Feeds | None
) -> tuple[Feeds, dict[str, np.ndarray]]:
    """Inputs that the source accepts, and its outputs."""
    feeds = first_that_runs(source, lambda f: answers(source, f, threads), seed, ORT_ERRORS, spare)
    return feeds, answers(source, feeds, threads)


def _worst_error(wanted: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    worst = 0.0
    for name, expected in wanted.items():
        if is_inexact(expected) and expected.shape == found[name].shape:
            agreement = Agreement()
            agreement.add(expected[None], found[name][None])
            worst = max(worst, agreement.numbers()["relative_error"])
    return worst


def _saturated_outputs(model: ir.Model) -> dict[str, str]:
    """Operators of `_SATURATING` by the output that they make."""
    makers = {str(value.name): value.producer() for value in model.graph.outputs}
    return {name: node.op_type for name, node in makers.items() if node is not None and node.op_type in _SATURATING}


def _without_saturation(model: ir.Model) -> ir.Model:
    """A copy whose outputs that `_SATURATING` operators make, under their own names, are the inputs of these."""
    copy = model.clone()
    for value in copy.graph.outputs:
        node = value.producer()
        if node is not None and node.op_type in _SATURATING:
            node.op_type = "Identity"
            node.attributes.clear()
    return copy
