"""Layers that 8 bits hurt go back to float: the worst of them together, where that is worth the conversions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from prunec.passes.quantise.placement import place, quantisable
from prunec.passes.quantise.prepare import Prepared

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
    found: Prepared, judged: Callable[[Prepared], float], exclude: Collection[str], progress: Progress
) -> tuple[Prepared, dict[str, str], float]:
    """Layers whose return to float, together, halves an error above `MOST`: the worst of them.

    What is left in 8 bits, the layers in float with the reason (`exclude` among them), and the error.
    """

    def without(names: Collection[str]) -> Prepared:
        return replace(found, placement=place(found.model, names))

    left, error = dict.fromkeys(exclude, "excluded"), judged(found)
    if error <= MOST:
        return found, left, error
    alone: dict[str, float] = {}
    layers = found.placement.layers
    everything = {layer.name for layer in quantisable(found.model)}
    for number, name in enumerate(layers):
        progress("looking for sensitive layers", number, len(layers))
        alone[name] = judged(without(everything - {name}))
    progress("looking for sensitive layers", len(layers), len(layers))
    worst = sorted(alone, key=lambda own: -alone[own])[: min(WORST, len(alone) - 1)]
    fewer = [without({*left, *worst[:count]}) for count in range(1, len(worst) + 1)]
    errors = [judged(own) for own in fewer]
    if not errors or min(errors) > GAIN * error:
        return found, left, error
    count = next(number for number, own in enumerate(errors, 1) if own <= NEAR * min(errors))
    why = f"with 8 bits the outputs' error was {error:.2g}, without {errors[count - 1]:.2g}"
    return fewer[count - 1], {**left, **dict.fromkeys(worst[:count], why)}, errors[count - 1]
