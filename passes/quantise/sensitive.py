"""Layers that 8 bits hurt go back to float: the worst of them together, where that is worth the conversions."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from prunec.passes.quantise.placement import Placement, place, quantisable

MOST = 0.03
"""Error of the outputs that needs no layer in float."""
WORST = 5
"""Layers that go back to float at most, those with the largest errors by themselves first."""
GAIN = 0.5
"""What the outputs' error must fall to for that: layers in float, and the conversions around them, cost time."""
NEAR = 1.1
"""Fewer layers are taken where they come within this factor of the least error."""
Progress = Callable[[str, int, int], None]


def float_again(
    model: ir.Model,
    placement: Placement,
    judged: Callable[[Placement], float],
    left: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, str], float]:
    """Layers whose return to float, together, halves an error above `MOST`: the worst of them."""
    error = judged(placement)
    if error <= MOST:
        return left, error
    alone: dict[str, float] = {}
    everything = {layer.name for layer in quantisable(model)}
    for number, name in enumerate(placement.layers):
        progress("looking for sensitive layers", number, len(placement.layers))
        alone[name] = judged(place(model, everything - {name}))
    progress("looking for sensitive layers", len(placement.layers), len(placement.layers))
    worst = sorted(alone, key=lambda own: -alone[own])[: min(WORST, len(alone) - 1)]
    found = [judged(place(model, {*left, *worst[:count]})) for count in range(1, len(worst) + 1)]
    if not found or min(found) > GAIN * error:
        return left, error
    count = next(number for number, own in enumerate(found, 1) if own <= NEAR * min(found))
    why = f"with 8 bits the outputs' error was {error:.2g}, without {found[count - 1]:.2g}"
    return {**left, **dict.fromkeys(worst[:count], why)}, found[count - 1]
