"""`report.html`: one file, no scripts, nothing loaded from anywhere; light, dark and on paper.

Everything from the model (names of layers, of files, of groups) is escaped: the template escapes by default and the
pictures are built from escaped parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from prunec.report import charts, units
from prunec.report.data import ReportData, before_after, planned_groups
from prunec.report.device import device_section
from prunec.report.template import template


@dataclass(frozen=True)
class Tile:
    """One large number at the top."""

    label: str
    value: str
    note: str
    good: bool | None = None


def render_report(data: ReportData) -> str:
    """The whole page as text."""
    measured = data.measurements or {}
    distributions = measured.get("distributions") or {}
    exactness = data.verification.get("exactness") or {}
    return template("page.html").render(
        data=data,
        device_section=Markup(device_section(None)),
        plan_line=_plan_line(data.plan),
        tiles=_tiles(data),
        rows=before_after(data),
        speedups=data.speedups,
        layer_chart=charts.layer_costs(data.layers),
        latency_chart=charts.latencies(distributions, data.subject) if distributions else "",
        ratio_charts=[
            (name, charts.paired_ratios(distributions[name], distributions[data.subject], speedup, name=name))
            for name, speedup in data.speedups.items()
            if name in distributions and data.subject in distributions
        ],
        groups=[_group(group) for group in planned_groups(data.plan)],
        group_errors={error["id"]: error for error in exactness.get("groups", ())},
        fact_tables=[(title, facts) for title, facts in _facts(data) if facts],
    )


def _tiles(data: ReportData) -> list[Tile]:
    tiles = []
    for name, speedup in list(data.speedups.items())[:1]:
        low, high = speedup.ci95
        good = {"faster": True, "slower": False}.get(speedup.verdict)
        verdict = f"{speedup.verdict} than {name}" if good is not None else f"{speedup.verdict}, against {name}"
        note = f"{low:.2f} to {high:.2f}, {verdict}"
        tiles.append(Tile("Speed-up", units.factor(speedup.median), note, good))
    if not tiles:
        note = "not measured" if data.modelled is None else "not measured here: see latency"
        tiles.append(Tile("Speed-up", "–", note))
    for row in before_after(data):
        if row.label in ("Parameters", "Multiply-accumulates", "Model file"):
            tiles.append(Tile(row.label, row.change, f"{row.before} → {row.after}"))
    quality = data.verification.get("quality")
    if quality:
        note = f"{quality['metric']}, {quality['data']} data"
        note += f", {quality['samples']} samples" if quality.get("samples") else ""
        tiles.append(Tile("Quality drop", units.number(quality["drop"]), note))
    return tiles


def _plan_line(plan: Mapping[str, Any]) -> str:
    """`pattern channel, criterion wanda, budget sparsity 0.5, seed 0`; a criterion only where one was asked."""
    budget = plan.get("budget") or {}
    parts = [f"{key} {plan[key]}" for key in ("pattern", "solver", "criterion") if plan.get(key) not in (None, "none")]
    if plan.get("structures"):
        parts.insert(0, f"structures {' and '.join(plan['structures'])}")
    if budget:
        parts.append(f"budget {budget.get('kind')} {budget.get('value')}")
    if plan.get("seed") is not None:
        parts.append(f"seed {plan['seed']}")
    return ", ".join(parts)


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    """Id, size and number of kept channels of one group of the plan."""
    kept = group["kept"] if "kept" in group else len(group["keep"])
    return {"id": group["id"], "size": group["size"], "kept": kept}


def _facts(data: ReportData) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled lists of name and value: target, budget, protocol, machine, versions."""
    measured = data.measurements or {}
    tensors = [
        (f"{role} {record['name']}", f"{record['dtype']} {_shape(record['shape'])}")
        for role, records in (("input", data.manifest["inputs"]), ("output", data.manifest["outputs"]))
        for record in records
    ]
    budget = _flat(
        {key: data.plan[key] for key in ("budget", "requested", "realised", "time", "drop") if key in data.plan}
    )
    return [
        ("Inputs and outputs", tensors),
        ("Budget", budget),
        ("Measurement protocol", _flat(measured.get("protocol", {}))),
        ("Machine", _flat(measured.get("machine", {}))),
        ("Tools", sorted((name, str(version)) for name, version in data.manifest["tools"].items())),
    ]


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as `outer: inner`; lists in one line; underscores of our own outer names as blanks."""
    facts: list[tuple[str, str]] = []
    for key, value in document.items():
        name = f"{prefix}{key}" if prefix else key.replace("_", " ")
        if isinstance(value, Mapping):
            facts += _flat(value, prefix=f"{name}: ")
        elif isinstance(value, list | tuple):
            facts.append((name, ", ".join(map(str, value))))
        else:
            facts.append((name, str(value)))
    return facts


def _shape(shape: list[Any] | tuple[Any, ...] | None) -> str:
    if shape is None:
        return "of any shape"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
