"""Small helpers for hand-made SVG: everything that goes in is escaped, colours are classes of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup


def figure(width: float, height: float, parts: Iterable[Markup], *, label: str) -> Markup:
    """An <svg> that scales with the page; `label` is what a screen reader says."""
    body = Markup("\n").join(parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">\n{}\n</svg>').format(
        _n(width), _n(height), label, body
    )


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> Markup:
    """A box of class `kind`, with a tooltip if there is a title."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}">{}</rect>').format(
        _n(x), _n(y), _n(max(0.0, width)), _n(height), kind, _title(title)
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A line of class `kind`."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(_n(x1), _n(y1), _n(x2), _n(y2), kind)


def dot(x: float, y: float, kind: str, title: str = "") -> Markup:
    """A small circle of class `kind`."""
    return Markup('<circle cx="{}" cy="{}" r="2.6" class="{}">{}</circle>').format(_n(x), _n(y), kind, _title(title))


def text(x: float, y: float, content: str, kind: str, title: str = "") -> Markup:
    """Text of class `kind` (which also anchors it), with a tooltip if there is a title."""
    return Markup('<text x="{}" y="{}" class="{}">{}{}</text>').format(_n(x), _n(y), kind, content, _title(title))


def shorten(name: str, limit: int) -> str:
    """Cut out the middle: layers are told apart by where their names begin and end."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def ticks(highest: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 to just above `highest`, about `wanted` of them."""
    if highest <= 0:
        return [0.0, 1.0]
    raw = highest / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    return [step * index for index in range(math.ceil(highest / step - 1e-9) + 1)]


def _title(title: str) -> Markup:
    return Markup("<title>{}</title>").format(title) if title else Markup("")


def _n(value: float) -> str:
    """A coordinate: at most two decimals, no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
