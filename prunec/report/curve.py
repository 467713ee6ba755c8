"""`curve.html`: a sweep as a picture and a table, in one file without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from prunec.plan.curve import Curve
from prunec.plan.plan import Plan
from prunec.report import svg, units
from prunec.report.template import template

PAGE = "curve.html"
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT = 920.0, 380.0, 70.0, 32.0, 120.0
_NAME = (130.0, 14.0)
"""Room for the name of a curve."""


def render_curve(name: str, curve: Curve) -> str:
    """The whole page as text; `name` is the model's."""
    best = curve.best()
    rows = [(n, plan, n in best) for n, plan in sorted(curve.plans.items()) if plan.time and plan.drop]
    first = rows[0][1]
    return template("curve_page.html").render(
        name=name,
        question=curve.question,
        metric=first.drop.metric if first.drop else "",
        dense_ms=first.time.dense_ms if first.time else 0.0,
        machine=first.time.machine if first.time else curve.question.machine,
        modelled=curve.modelled_for is not None,
        is_sparse=curve.is_sparse,
        chart=quality_against_speed({"": spots(curve.plans)}, metric=first.drop.metric if first.drop else ""),
        rows=rows,
        is_whole=curve.is_whole,
    )


class Spot(NamedTuple):
    """A point of a curve: its number, how many times as fast with the 95 % interval, what quality drops by."""

    number: int
    speedup: float
    interval: tuple[float, float]
    drop: float


def spots(plans: Mapping[int, Plan]) -> list[Spot]:
    """Of the plans that were measured and judged, in the order of their numbers."""
    return [
        Spot(n, 1 / p.time.share, (1 / p.time.ci95[1], 1 / p.time.ci95[0]), p.drop.drop)
        for n, p in sorted(plans.items())
        if p.time and p.drop
    ]


def quality_against_speed(
    found: Mapping[str, Sequence[Spot]], beside: Mapping[str, tuple[float, float]] | None = None, *, metric: str = ""
) -> Markup:
    """What of `metric` is lost, downwards, against the measured speed-up with its 95 % interval.

    The first curve is the subject. Points are joined in their order; the dense model is where every curve begins.
    `beside`: single points by name, speed-up and drop, of what was measured elsewhere; what is slower than the dense
    model stands at its time.
    """
    beside = beside or {}
    points = [point for own in found.values() for point in own]
    across = svg.ticks(max(2.0, *(high for _, _, (_, high), _ in points), *(fast for fast, _ in beside.values())) - 1)
    drops = [*(drop for *_, drop in points), *(drop for _, drop in beside.values())]
    down = svg.ticks(max(1e-6, *drops))
    most = min(0.0, *drops)  # some gain a little
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - 50

    def x(speedup: float) -> float:
        return _LEFT + wide * (speedup - 1) / across[-1]

    def y(drop: float) -> float:
        return _TOP + tall * (drop - most) / (down[-1] - most)

    bottom = y(down[-1])
    parts = []
    for mark in across:
        parts.append(svg.line(x(1 + mark), _TOP, x(1 + mark), bottom, "grid"))
        parts.append(svg.text(x(1 + mark), bottom + 18, f"{1 + mark:g}\N{MULTIPLICATION SIGN}", "tick middle"))
    for mark in down:
        parts.append(svg.line(_LEFT, y(mark), _LEFT + wide, y(mark), "grid"))
        parts.append(svg.text(_LEFT - 8, y(mark) + 4, units.number(-mark) if mark else "0", "tick end"))
    parts.append(svg.text(_LEFT + wide / 2, bottom + 38, "times as fast as the dense model", "tick middle"))
    parts.append(svg.text(_LEFT, 14, f"change of {metric or 'quality'}", "tick"))
    names: list[tuple[float, float, str]] = []
    for number, (name, own) in enumerate(found.items()):
        kind = "own" if number == 0 else "other"
        before = (x(1.0), y(0.0))
        for n, speedup, (low, high), drop in own:
            here, label = (x(speedup), y(drop)), f"{name} {n}".strip()
            what = f"{label}: {units.factor(speedup)} ({low:.2f} to {high:.2f}), drop {units.number(drop)}"
            parts.append(svg.line(*before, *here, f"median {kind}"))
            parts.append(svg.line(x(max(low, 1.0)), here[1], x(high), here[1], f"median {kind}"))
            parts.append(svg.dot(*here, kind, title=what))
            if number == 0:
                parts.append(svg.text(here[0] + 6, here[1] - 7, str(n), "tick"))
            before = here
        if name and own:
            names.append((x(own[-1].interval[1]) + 8, before[1] + 4, name))
    for name, (speedup, drop) in beside.items():
        here, what = (x(max(speedup, 1.0)), y(drop)), f"{name}: {units.factor(speedup)}, drop {units.number(drop)}"
        parts.append(svg.dot(*here, "other", title=what))
        names.append((here[0] + 8, here[1] - 4, name))
    parts += [svg.text(right, down, name, "tick") for right, down, name in apart(names)]
    return svg.figure(_WIDTH, _HEIGHT, parts, label="Loss of quality against speed-up")


def apart(names: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """The same at places (x, y) where none is written over another: further down, where it has to be."""
    wide, tall = _NAME
    found: list[tuple[float, float, str]] = []
    for x, y, name in sorted(names, key=lambda each: each[1]):
        for other, taken, _ in sorted(found, key=lambda each: each[1]):
            if abs(other - x) < wide and abs(taken - y) < tall:
                y = taken + tall
        found.append((x, y, name))
    return found
