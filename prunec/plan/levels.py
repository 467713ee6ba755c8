"""How much of each layer goes where a pattern leaves that open; the mean over all weights is what was asked for.

    uniform  the same share of every layer
    erk      kept share ∝ Σ lengths / Π lengths of the kernel: thin layers stay denser (arXiv 1911.11134)
    global   one threshold on the squared weights of all layers, pooled over the pattern's units
    lamp     one threshold on w² / Σ v², over the v of the layer that are not smaller (arXiv 2010.07611)
    loss     lamp with w²·E[x²], the energy of the products, in the place of w², and every layer scaled to what the
             model's outputs lose by a change of it alone (`statistics.output_errors`), which has three `SOURCES`:
             masked        a mask of the shares `MEASURED`
             solved        the layer as it was solved for each of the `LADDER` (`passes.sparsify.supernet`)
             zeroth-order  small random changes, and the energy itself as the curve (`api.zeroth_order`)

lamp, global and loss are curves, loss against level, per layer; steps along their convex hulls are taken in the order
of loss per weight. For lamp the curve is −log of the energy that is left: its slope is the score. Patterns that fix
their own level leave layers dense instead: `whole_levels`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from prunec.patterns import Layout, Pattern
from prunec.plan.hull import hull

Allocation = Literal["uniform", "erk", "lamp", "global", "loss"]
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)
Source = Literal["masked", "solved", "zeroth-order"]
SOURCES: tuple[Source, ...] = get_args(Source)
DEFAULT_SOURCE: Source = "masked"
STEPS = 32
"""Levels of a curve: multiples of one over this, the last one step below all of the layer."""
MEASURED = (0.5,)
LADDER = (0.25, 0.375, 0.5, 0.625, 0.75, 0.8125, 0.875)
"""Shares at which layers are timed, or solved beforehand."""
SMALLEST = 1e-6
"""Relative losses below it are rounding."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer: matrices [outputs, columns] and their layouts; E[x²] of the columns of each, None if not known."""

    parts: Sequence[tuple[np.ndarray, Layout]]
    inputs: Sequence[np.ndarray] | None = None

    @property
    def size(self) -> int:
        return sum(matrix.size for matrix, _ in self.parts)

    def energies(self, *, with_inputs: bool) -> list[np.ndarray]:
        """w², times E[x²] of what it multiplies; float64 like the matrices."""
        squares = [np.square(matrix, dtype=np.float64) for matrix, _ in self.parts]
        if not with_inputs or self.inputs is None:
            return squares
        return [square * own for square, own in zip(squares, self.inputs, strict=True)]


def grid() -> np.ndarray:
    """Levels of the curves, from 0, float64 [STEPS]."""
    return np.arange(STEPS) / STEPS


def masks(layer: LayerWeights, energies: Sequence[np.ndarray], pattern: Pattern, level: float) -> list[np.ndarray]:
    """What of each matrix stays at a level: the most energy, bool like the matrices."""
    return [pattern.project(e, layout, level) for e, (_, layout) in zip(energies, layer.parts, strict=True)]


def lost_energy(layer: LayerWeights, energies: Sequence[np.ndarray], pattern: Pattern, level: float) -> float:
    """Energy that a mask at a level removes."""
    kept = masks(layer, energies, pattern, level)
    return sum(float(energy[~mask].sum()) for energy, mask in zip(energies, kept, strict=True))


def energy_curve(layer: LayerWeights, energies: Sequence[np.ndarray], pattern: Pattern) -> np.ndarray:
    """`lost_energy` at every level of the grid, float64 [STEPS], from 0."""
    lost = [0.0, *(lost_energy(layer, energies, pattern, float(level)) for level in grid()[1:])]
    return np.maximum.accumulate(np.array(lost))


def scaled(curve: np.ndarray, levels: Sequence[float], measured: Sequence[float]) -> np.ndarray:
    """`curve` through what was measured at some levels; the factor in between is interpolated on a log scale."""
    own = np.interp(levels, grid(), curve)
    factors = np.log(np.maximum(measured, SMALLEST) / np.maximum(own, SMALLEST))
    return np.maximum.accumulate(curve * np.exp(np.interp(grid(), levels, factors)))


def whole_levels(losses: Mapping[str, float], sizes: Mapping[str, int], fixed: float, level: float) -> dict[str, float]:
    """`fixed` for the layers that lose least per weight, as many as the mean `level` takes; 0 for the others."""
    found, gone = dict.fromkeys(losses, 0.0), 0.0
    for name in sorted(losses, key=lambda name: losses[name] / sizes[name]):
        if gone >= level * sum(sizes.values()) - 1e-9:
            break
        found[name] = fixed
        gone += fixed * sizes[name]
    return found


def erk_levels(raw: Mapping[str, float], sizes: Mapping[str, int], level: float) -> dict[str, float]:
    """Kept shares in proportion to `raw` (`erdos_renyi`), at most 1; those at 1 leave the others to the budget."""
    kept_whole: set[str] = set()
    budget = (1 - level) * sum(sizes.values())
    while True:
        rest = [name for name in raw if name not in kept_whole]
        left = budget - sum(sizes[name] for name in kept_whole)
        scale = left / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        full = {name for name in rest if scale * raw[name] >= 1}
        if not full:
            return {name: 0.0 if name in kept_whole else 1 - scale * raw[name] for name in raw}
        kept_whole |= full


def erdos_renyi(layer: LayerWeights, rows: int | None = None) -> float:
    """Σ lengths / Π lengths of the kernel. `rows`: outputs of it, where they are in several matrices."""
    matrix, layout = layer.parts[0]
    square = [math.sqrt(layout.positions)] * 2 if layout.positions > 1 else []
    lengths = [len(matrix) if rows is None else rows, layout.channels, *square]
    return sum(lengths) / math.prod(lengths)


def curve_levels(curves: Mapping[str, np.ndarray], sizes: Mapping[str, int], level: float) -> dict[str, float]:
    """Levels at which the sum of the losses is least, by steps along the hulls; the last step is taken in part.

    `curves`: loss at every level of the grid, never falling.
    """
    steps: list[tuple[float, str, int]] = []
    for name in curves:
        rises = np.diff(hull(grid(), curves[name]))
        steps += [(float(rise) * STEPS / sizes[name], name, number) for number, rise in enumerate(rises)]
    wanted = level * sum(sizes.values())
    found, gone = dict.fromkeys(curves, 0.0), 0.0
    for _, name, _ in sorted(steps, key=lambda step: (step[0], list(curves).index(step[1]), step[2])):
        share = min(1 / STEPS, (wanted - gone) / sizes[name])
        if share <= 0:
            break
        found[name] += share
        gone += share * sizes[name]
    return found
