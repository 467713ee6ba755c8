"""What a report is made from, and the rows of its before-and-after table.

The parts are the JSON documents of the package, so that a report can be made again from a package on disk. A part
that is not there is empty or None, and its section says so or is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prunec.diagnostics import Diagnostic
from prunec.measure.results import Speedup
from prunec.report import units

Document = Mapping[str, Any]


@dataclass(frozen=True)
class ReportData:
    """All that report.html and the terminal tables show.

    `layers`: one mapping per layer in execution order with name, op, macs_before, macs_after, params_before,
    params_after. `modelled`: what layers would take on a machine that is not here. `command`: what reproduces the
    package, without paths of this machine if it can be helped.
    """

    manifest: Document
    plan: Document
    verification: Document = field(default_factory=dict)
    measurements: Document | None = None
    modelled: Document | None = None
    layers: Sequence[Document] = ()
    warnings: Sequence[Diagnostic] = ()
    command: str = ""
    bytes_before: int | None = None
    bytes_after: int | None = None

    @property
    def speedups(self) -> dict[str, Speedup]:
        """Baseline name to speed-up; empty if nothing was measured."""
        found = (self.measurements or {}).get("speedup", {})
        prefix = len("vs_")
        return {name[prefix:]: Speedup.model_validate(value) for name, value in found.items()}

    @property
    def subject(self) -> str | None:
        """The contender that the speed-ups are about."""
        subject: str | None = (self.measurements or {}).get("protocol", {}).get("subject")
        return subject

    def total(self, key: str) -> int:
        """Sum of one column of `layers`."""
        return sum(int(layer[key]) for layer in self.layers)


def planned_groups(plan: Document) -> list[Document]:
    """All groups of a plan; those of head widths are a later stage with ids of their own, so they are told apart."""
    widths = (plan.get("head_width") or {}).get("groups", ())
    return [*plan.get("groups", ()), *({**group, "id": f"head width {group['id']}"} for group in widths)]


@dataclass(frozen=True)
class Row:
    """One line of the before-and-after table, ready to print. `good` is None where there is no better or worse."""

    label: str
    before: str
    after: str
    change: str
    good: bool | None = None


def before_after(data: ReportData) -> list[Row]:
    """Parameters, multiply-accumulates, size, latency, memory and quality, as far as they are known."""
    return [*_size_rows(data), *_latency_rows(data), *_quality_rows(data)]


def _size_rows(data: ReportData) -> list[Row]:
    rows = []
    if data.layers:
        for label, key in (("Parameters", "params"), ("Multiply-accumulates", "macs")):
            before, after = data.total(f"{key}_before"), data.total(f"{key}_after")
            rows.append(_shrunk(label, before, after, units.count))
    if data.bytes_before and data.bytes_after is not None:
        rows.append(_shrunk("Model file", data.bytes_before, data.bytes_after, units.size))
    return rows


def _shrunk(label: str, before: int, after: int, show: Callable[[float], str]) -> Row:
    return Row(
        label, show(before), show(after), units.change(before, after), None if before == after else after < before
    )


def _latency_rows(data: ReportData) -> list[Row]:
    if data.measurements is None or data.subject is None:
        return []
    contenders = data.measurements["contenders"]
    own = contenders[data.subject]
    rows = []
    for name, speedup in data.speedups.items():
        good = {"faster": True, "slower": False}.get(speedup.verdict)
        before, after = units.ms(contenders[name]["p50_ms"]), units.ms(own["p50_ms"])
        rows.append(Row(f"Latency, {data.subject} against {name}", before, after, units.interval(speedup), good))
    dense = contenders.get("dense_onnxruntime", {})
    if "peak_rss_mib" in dense and "peak_rss_mib" in own:
        before, after = dense["peak_rss_mib"], own["peak_rss_mib"]
        change = units.change(before, after)
        rows.append(Row("Peak memory of the process", f"{before:.0f} MiB", f"{after:.0f} MiB", change))
    return rows


def _quality_rows(data: ReportData) -> list[Row]:
    quality = data.verification.get("quality")
    if not quality:
        return []
    drop = quality["drop"]
    count = f", {quality['samples']} samples" if quality.get("samples") else ""
    label = f"Quality: {quality['metric']} ({quality['data']} data{count})"
    change = "no drop" if drop == 0 else f"drop {units.number(drop)}"
    good = None if drop == 0 else drop < 0
    return [Row(label, units.number(quality["dense"]), units.number(quality["pruned"]), change, good)]
