"""Blocks of a shape per layer: finer ones lose less, and where a layer is hardly slower with them it gets them.

Tall blocks suit registers, and a layer that waits for memory gains nothing by them: so every layer is timed with each
finer pattern of the target at the level that it has. Layers whose width the tall ones do not fit start from the tallest
that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from prunec.api.options import PlanOptions
from prunec.api.progress import Progress
from prunec.api.target_list import backend_for
from prunec.diagnostics import PrunecError
from prunec.passes.sparsify import LayerPattern, views
from prunec.passes.sparsify.views import prunable_layers
from prunec.patterns import Pattern, parse
from prunec.plan.layers import DENSE
from prunec.plan.plan import LayerPlan
from prunec.report.units import ms


def with_finer(layers: Sequence[LayerPlan], finer: Sequence[Sequence[LayerPlan]]) -> tuple[LayerPlan, ...]:
    """`layers`, those that the pattern does not fit as the first of the `finer` plans has them that it fits."""
    found = list(layers)
    for plan in finer:
        found = [other if own.pattern == DENSE else own for own, other in zip(found, plan, strict=True)]
    return tuple(found)


def finer_patterns(pattern: Pattern, options: PlanOptions) -> tuple[Pattern, ...]:
    """The target's blocks of as many inputs and fewer outputs, coarser ones first; none without `options.finer`.

    Raises:
        PrunecError PC208: the target has no finer blocks.
    """
    if options.finer is None:
        return ()
    backend = backend_for(options.target, options.precision)
    names = () if backend is None else backend.patterns
    known = [parse(name) for name in names if name.startswith("block:")]
    found = sorted((p for p in known if p.width == pattern.width and p.rows < pattern.rows), key=lambda p: -p.rows)
    if not found:
        message = f"{options.target} has no blocks that are finer than {pattern}"
        hint = "leave it out, or start from taller blocks such as block:32x1"
        raise PrunecError("PC208", message, where="--finer", hint=hint)
    return tuple(found)


def finer_blocks(
    layers: Sequence[LayerPlan], cut: ir.Model, steps: Sequence[Pattern], options: PlanOptions, progress: Progress
) -> tuple[LayerPlan, ...]:
    """`layers` of a dense model in the finest of their own blocks and `steps` that cost at most `options.finer` more.

    Times are the target's own (`Backend.times`). Unchanged without that option.

    Raises:
        PrunecError PC45x: nothing can be built or run here.
    """
    asked = {p.node: LayerPattern(parse(p.pattern), p.level) for p in layers if p.pattern != DENSE}
    backend = backend_for(options.target, options.precision)
    if options.finer is None or backend is None or not asked:
        return tuple(layers)
    own, chosen, why = prunable_layers(cut), dict(asked), dict[str, str]()
    known = {p.name: p for p in (*steps, *(wanted.pattern for wanted in asked.values()))}
    order, limits = sorted(known.values(), key=lambda p: -p.rows), dict[str, float]()
    for number, step in enumerate(order):
        progress("timing layers with finer blocks", number, len(order))
        wanted = {
            node: replace(old, pattern=step)
            for node, old in asked.items()
            if step.rows <= old.pattern.rows and views.refusal(own[node], step) is None
        }
        if not wanted:
            continue
        times = backend.times(cut, wanted, options.threads, options.made_up_shapes, options.cache)
        for node, taken in times.items():
            if step.name == asked[node].pattern.name:
                limits[node] = taken.sparse_us
            elif node in limits and taken.sparse_us <= (1 + options.finer) * limits[node]:
                chosen[node] = wanted[node]
                why[node] = f"{ms(taken.sparse_us / 1e3)}, with {asked[node].pattern} {ms(limits[node] / 1e3)}"
    progress("timing layers with finer blocks", len(order), len(order))
    return tuple(
        p.model_copy(update={"pattern": chosen[p.node].pattern.name, "why": why[p.node]}) if p.node in why else p
        for p in layers
    )
