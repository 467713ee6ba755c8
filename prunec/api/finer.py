"""Blocks of a shape per layer: finer ones lose less, and where a layer is hardly slower with them it gets them.

Tall blocks suit registers, and a layer that waits for memory, or whose width they fit badly, gains nothing by them: so
every layer is timed with each finer pattern of the target at the level that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


def finer_blocks(
    layers: Sequence[LayerPlan], cut: ir.Model, pattern: Pattern, options: PlanOptions, progress: Progress
) -> tuple[LayerPlan, ...]:
    """`layers` of a dense model, those with `pattern` in the finest blocks that cost no more than `options.finer` more.

    Unchanged without that option. Times are the target's own (`Backend.times`), relative to those with `pattern`.

    Raises:
        PrunecError PC208: the target has no finer blocks; PC45x: nothing can be built or run here.
    """
    asked = {p.node: LayerPattern(parse(p.pattern), p.level) for p in layers if p.pattern != DENSE}
    if options.finer is None or not asked:
        return tuple(layers)
    backend = backend_for(options.target)
    steps = tuple(_finer(pattern, () if backend is None else backend.patterns))
    if backend is None or not steps:
        message = f"{options.target} has no blocks that are finer than {pattern}"
        hint = "leave it out, or start from taller blocks such as block:32x1"
        raise PrunecError("PC208", message, where="--finer", hint=hint)
    own, chosen, best = prunable_layers(cut), dict(asked), dict[str, str]()
    limits = dict[str, float]()
    for number, step in enumerate((pattern, *steps)):
        progress("timing layers with finer blocks", number, 1 + len(steps))
        wanted = {
            node: replace(old, pattern=step) for node, old in asked.items() if views.refusal(own[node], step) is None
        }
        times = backend.times(cut, wanted, options.threads, options.made_up_shapes, options.cache)
        for node, taken in times.items():
            if step is pattern:
                limits[node] = taken.sparse_us
            elif node in limits and taken.sparse_us <= (1 + options.finer) * limits[node]:
                chosen[node] = wanted[node]
                best[node] = f"{ms(taken.sparse_us / 1e3)}, with {pattern} {ms(limits[node] / 1e3)}"
    progress("timing layers with finer blocks", 1 + len(steps), 1 + len(steps))
    return tuple(
        p.model_copy(update={"pattern": chosen[p.node].pattern.name, "why": best[p.node]}) if p.node in best else p
        for p in layers
    )


def _finer(pattern: Pattern, patterns: Sequence[str]) -> Iterator[Pattern]:
    """The target's blocks of as many inputs and fewer outputs, coarser ones first."""
    known = [parse(name) for name in patterns if name.startswith("block:")]
    wanted = [p for p in known if p.width == pattern.width and p.rows < pattern.rows]
    yield from sorted(wanted, key=lambda p: -p.rows)
