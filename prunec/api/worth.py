"""Zeros only where they pay: layers that a target's kernels run no faster with zeros stay dense.

What is known of layers is the target's: prunec's own kernels are measured, or modelled for machines that are not here;
for TensorRT, which chooses on the device, there is nothing to add to the rules that its layers were chosen by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.target_list import backend_for
from prunec.backends.base import LayerTimes
from prunec.diagnostics import Diagnostic, PrunecError
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import parse
from prunec.plan.layers import DENSE
from prunec.plan.plan import LayerPlan
from prunec.report.units import ms

INCLUDED = "--include"


def worthwhile(
    layers: Sequence[LayerPlan], cut: ir.Model, options: PlanOptions, progress: Progress
) -> tuple[tuple[LayerPlan, ...], list[Diagnostic]]:
    """`layers` of a dense model; those that would be no faster with their zeros become dense, unless named by hand.

    Unchanged where the target has no kernels of ours, or nothing is to be timed here. PC461 says what stays dense,
    PC462 that nothing could be timed.
    """
    backend = backend_for(options.target, options.precision)
    asked = {
        p.node: LayerPattern(parse(p.pattern), p.level) for p in layers if p.pattern != DENSE and p.why != INCLUDED
    }
    if backend is None or not asked or not (options.measures or backend.models_times):
        return tuple(layers), []
    progress("weighing layers with zeros against dense ones", 0, 0)
    try:
        times = backend.times(cut, asked, options.threads, options.made_up_shapes, options.cache)
    except PrunecError as reason:
        message = f"layers could not be timed, and all are taken to be faster with zeros: {reason.diagnostic.message}"
        return tuple(layers), [Diagnostic("PC462", message, hint=reason.diagnostic.hint)]
    slow = {node: own for node, own in times.items() if node in asked and not own.is_faster}
    left = {node: _why(own) for node, own in slow.items()}
    chosen = tuple(
        p.model_copy(update={"pattern": DENSE, "level": 0.0, "why": left[p.node]}) if p.node in left else p
        for p in layers
    )
    return chosen, _said(left, len(asked))


def _why(own: LayerTimes) -> str:
    where = "" if own.modelled_on is None else f", modelled for {own.modelled_on}"
    return f"no faster with zeros{where}: {ms(own.sparse_us / 1e3)}, dense {ms(own.dense_us / 1e3)}"


def _said(left: Mapping[str, str], of: int) -> list[Diagnostic]:
    if not left:
        return []
    shown = "; ".join(f"{node} ({why})" for node, why in list(left.items())[:3])
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    message = f"{len(left)} of {of} layers stay dense: {shown}{more}"
    return [Diagnostic("PC461", message, hint="--include NAME gives them zeros all the same")]
