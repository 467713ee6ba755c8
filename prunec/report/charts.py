"""The pictures of report.html: cost per layer, latency per contender, and the paired ratios round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from prunec.measure.results import Speedup
from prunec.report import svg, units

WIDTH = 920.0
_LABEL = 230.0  # room for names on the left
_VALUE = 190.0  # room for numbers on the right
_PLOT = WIDTH - _LABEL - _VALUE
_DENSE_ROWS = 40  # above this many layers, rows get thinner


def layer_costs(layers: Sequence[Mapping[str, Any]]) -> Markup:
    """One bar per layer: its multiply-accumulates before, the part that was cut hatched."""
    step, bar = (22.0, 14.0) if len(layers) <= _DENSE_ROWS else (15.0, 10.0)
    size = "" if len(layers) <= _DENSE_ROWS else " small"
    highest = max((float(layer["macs_before"]) for layer in layers), default=0.0) or 1.0
    parts = [_HATCH]
    for index, layer in enumerate(layers):
        before, after = float(layer["macs_before"]), float(layer["macs_after"])
        top = 4 + index * step
        base = top + bar - 2
        full, kept = _PLOT * before / highest, _PLOT * after / highest
        what = f"{layer['name']} ({layer['op']}): {units.count(before)} → {units.count(after)} MACs"
        parts += [
            svg.text(_LABEL - 10, base, svg.shorten(str(layer["name"]), 34), f"label end{size}", title=what),
            svg.rect(_LABEL, top, kept, bar, "kept", title=what),
            svg.rect(_LABEL + kept, top, full - kept, bar, "cut", title=what),
            svg.text(WIDTH - _VALUE + 10, base, _cost(before, after), f"value{size}"),
        ]
    parts.append(svg.line(_LABEL, 0, _LABEL, 4 + len(layers) * step, "axis"))
    return svg.figure(WIDTH, 8 + len(layers) * step, parts, label="Multiply-accumulates per layer, before and after")


def latencies(distributions: Mapping[str, Sequence[float]], subject: str | None) -> Markup:
    """One row per contender: every block as a dot, the middle half as a box, the median as a line. From zero, in ms."""
    step, top = 58.0, 8.0
    marks = svg.ticks(max((max(values) for values in distributions.values()), default=1.0))
    scale = (WIDTH - _LABEL - 30) / marks[-1]
    bottom = top + step * len(distributions)
    parts: list[Markup] = []
    for mark in marks:
        x = _LABEL + mark * scale
        parts += [svg.line(x, top, x, bottom, "grid"), svg.text(x, bottom + 18, f"{mark:g}", "tick middle")]
    parts.append(svg.text(_LABEL + (WIDTH - _LABEL - 30) / 2, bottom + 36, "median of each block, ms", "tick middle"))
    for index, (name, values) in enumerate(distributions.items()):
        middle = top + step * (index + 0.5)
        kind = "own" if name == subject else "other"
        low, median, high = np.percentile(values, (25, 50, 75))
        parts += [
            svg.text(_LABEL - 10, middle - 1, svg.shorten(name, 30), "label end"),
            svg.text(_LABEL - 10, middle + 14, units.ms(float(median)), "tick end"),
            svg.rect(_LABEL + low * scale, middle - 15, (high - low) * scale, 30, f"box {kind}"),
        ]
        offsets = _spread(len(values))
        parts += [
            svg.dot(_LABEL + value * scale, middle + 11 * offset, kind, title=units.ms(value))
            for value, offset in zip(values, offsets, strict=True)
        ]
        x = _LABEL + float(median) * scale
        parts.append(svg.line(x, middle - 19, x, middle + 19, f"median {kind}"))
    return svg.figure(WIDTH, bottom + 46, parts, label="Latency of every block per contender")


def paired_ratios(baseline: Sequence[float], subject: Sequence[float], speedup: Speedup, *, name: str) -> Markup:
    """The ratio of each round over time, the 95 % interval of their median as a band, and the line of no difference."""
    height, top, left = 170.0, 10.0, 60.0
    ratios = np.asarray(baseline, np.float64) / np.asarray(subject, np.float64)
    marks = svg.ticks(max(1.2, float(ratios.max()) * 1.05), wanted=4)
    across = (WIDTH - left - 30) / max(1, len(ratios) - 1)
    right = WIDTH - 30

    def y(ratio: float) -> float:
        return top + height * (1 - ratio / marks[-1])

    low, high = speedup.ci95
    parts: list[Markup] = []
    for mark in marks:
        parts += [
            svg.line(left, y(mark), right, y(mark), "grid"),
            svg.text(left - 8, y(mark) + 4, f"{mark:g}\N{MULTIPLICATION SIGN}", "tick end"),
        ]
    parts += [
        svg.rect(left, y(high), right - left, max(1.0, y(low) - y(high)), "band"),
        svg.line(left, y(1.0), right, y(1.0), "one"),
        svg.line(left, y(speedup.median), right, y(speedup.median), "median own"),
        *(
            svg.dot(left + index * across, y(float(ratio)), "own", title=f"round {index + 1}: {units.factor(ratio)}")
            for index, ratio in enumerate(ratios)
        ),
        svg.text(left + (right - left) / 2, top + height + 20, f"round 1 to {len(ratios)}", "tick middle"),
    ]
    return svg.figure(WIDTH, top + height + 30, parts, label=f"Speed-up over {name}, round by round")


_HATCH = Markup(
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="5" height="5" class="hatch-ground"/><line x1="0" y1="0" x2="0" y2="5" class="hatch-line"/>'
    "</pattern></defs>"
)


def _cost(before: float, after: float) -> str:
    if before == after:
        return f"{units.count(before)}, not cut"
    return f"{units.count(before)} → {units.count(after)}  ({units.change(before, after)})"


def _spread(count: int) -> list[float]:
    """Offsets in -1..1 that keep neighbours apart and are the same every time: the golden ratio's fractions."""
    return [2 * ((index * 0.618034) % 1) - 1 for index in range(count)]
