"""Layers that 8 bits hurt go back to float: the worst of them together, where that is worth the conversions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
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
    found: Prepared,
    judged: Callable[[Prepared], float],
    exclude: Collection[str],
    progress: Progress,
    alone: Mapping[str, float] | None = None,
) -> tuple[Prepared, dict[str, str], float]:
    """Layers whose return to float, together, halves an error above `MOST`: the worst of them.

    What is left in 8 bits, the layers in float with the reason (`exclude` among them), and the error. `alone`: of each
    layer by itself, where that is known already.
    """
    left, error = dict.fromkeys(exclude, "excluded"), judged(found)
    if error <= MOST:
        return found, left, error
    own = errors_alone(found, judged, progress) if alone is None else alone
    worst = sorted(own, key=lambda name: -own[name])[: min(WORST, len(own) - 1)]
    fewer = [without(found, {*left, *worst[:count]}) for count in range(1, len(worst) + 1)]
    errors = [judged(own) for own in fewer]
    if not errors or min(errors) > GAIN * error:
        return found, left, error
    count = next(number for number, own in enumerate(errors, 1) if own <= NEAR * min(errors))
    why = f"with 8 bits the outputs' error was {error:.2g}, without {errors[count - 1]:.2g}"
    return fewer[count - 1], {**left, **dict.fromkeys(worst[:count], why)}, errors[count - 1]


def errors_alone(found: Prepared, judged: Callable[[Prepared], float], progress: Progress) -> dict[str, float]:
    """What `judged` says of each layer alone in 8 bits, all others in float, by node name."""
    everything, alone = {layer.name for layer in quantisable(found.model)}, dict[str, float]()
    for number, name in enumerate(found.placement.layers):
        progress("looking for sensitive layers", number, len(found.placement.layers))
        alone[name] = judged(without(found, everything - {name}))
    progress("looking for sensitive layers", len(alone), len(alone))
    return alone


def without(found: Prepared, names: Collection[str]) -> Prepared:
    """`found` with these layers in float."""
    return replace(found, placement=place(found.model, names))
