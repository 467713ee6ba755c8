"""Rows of the comparison: means over the seeds, and failures with their reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from benchmarks.peers.catalogue import OURS, Case
from benchmarks.peers.score import Score, mean_values
from benchmarks.subject import Subject
from benchmarks.tables import cell

OWN_LAYERS, OUR_LAYERS = "its own", "prunec's"


@dataclass(frozen=True)
class Row:
    """One tool and method on one model, or why there is nothing.

    `layers`: whose choice of layers; `value`: mean, over `range` in `seeds`; `time`: processor time over that of
    prunec's first method of the same case.
    """

    model: str
    case: str
    tool: str
    method: str
    layers: str
    samples: int
    seeds: str
    metric: str
    dense: float
    value: float | None = None
    range: str | None = None
    others: str | None = None
    output_error: float | None = None
    zeros: float | None = None
    params: float | None = None
    macs: float | None = None
    macs_nonzero: float | None = None
    two_of_four: float | None = None
    time: str | None = None
    note: str = ""
    seconds: float | None = None


def failure(subjects: Sequence[Subject], case: Case, tool: str, method: str, reason: str) -> Row:
    first = subjects[0]
    seeds = " ".join(str(subject.seed) for subject in subjects)
    return Row(
        model=first.name, case=str(case), tool=tool, method=method, layers=OWN_LAYERS, note=f"failed: {reason}",
        samples=first.calibration.samples, seeds=seeds, metric=first.metric, dense=first.dense,
    )  # fmt: skip


def success(
    subjects: Sequence[Subject], case: Case, tool: str, method: str, layers: str, scores: list[Score], seconds: float
) -> Row:
    """One score per subject."""
    first = subjects[0]
    found = [score.values[first.metric] for score in scores]
    others = [name for name in first.dense_values if name != first.metric]

    def mean(name: str) -> float:
        return float(np.mean([getattr(score, name) for score in scores]))

    is_untouched = all(score.output_error == 0 and score.params == score.macs_nonzero == 1 for score in scores)
    return replace(
        failure(subjects, case, tool, method, ""),
        layers=layers,
        value=float(np.mean(found)),
        range=f"{min(found):.3f} to {max(found):.3f}" if len(found) > 1 else None,
        others=", ".join(f"{name} {mean_values(scores, name):.3f}" for name in others) or None,
        **{name: mean(name) for name in _SHARES},
        note="left untouched" if is_untouched else "",
        seconds=seconds,
    )


_SHARES = ("output_error", "zeros", "params", "macs", "macs_nonzero", "two_of_four")


def with_times(rows: Sequence[Row]) -> list[Row]:
    """Processor time over prunec's in the same case; nothing where prunec did not run."""
    ours: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.tool.split()[0] == OURS and row.seconds:
            ours.setdefault((row.model, row.case), row.seconds)
    return [replace(row, time=_ratio(row.seconds, ours.get((row.model, row.case)))) for row in rows]


def _ratio(seconds: float | None, own: float | None) -> str | None:
    return None if seconds is None or own is None else f"{seconds / own:.2g}"


def text(row: Row) -> str:
    """One line for the terminal: what there is."""
    shown = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "seconds"}
    return "  ".join(f"{name}={cell(value)}" for name, value in shown.items() if value not in (None, ""))


def markdown(rows: Sequence[Row]) -> str:
    """A table for each model and case, without the columns that say nothing there."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.case), []).append(row)
    return "\n".join(_table(group) for group in groups.values())


def _table(rows: Sequence[Row]) -> str:
    first = rows[0]
    seeds = f"seed{'s' * (' ' in first.seeds)} {first.seeds}"
    heading = (
        f"**{first.model}, {first.case}**: {first.metric}, dense {first.dense:.3f}; "
        f"{first.samples} calibration samples, {seeds}"
    )
    columns = [column for column in _columns(first.metric) if _says_something(column, rows)]
    lines = [[c.title for c in columns], ["---"] * len(columns)]
    lines += [[_shown(getattr(row, c.field), c.is_share) for c in columns] for row in rows]
    return f"{heading}\n\n" + "".join(f"| {' | '.join(part.replace('|', '/') for part in line)} |\n" for line in lines)


@dataclass(frozen=True)
class _Column:
    field: str
    title: str
    is_share: bool = False


def _columns(metric: str) -> list[_Column]:
    return [
        _Column("tool", "tool"),
        _Column("method", "method"),
        _Column("layers", "layers"),
        _Column("value", metric),
        _Column("range", "range"),
        _Column("others", "others"),
        _Column("output_error", "output error"),
        _Column("zeros", "zeros", is_share=True),
        _Column("params", "parameters", is_share=True),
        _Column("macs", "MACs", is_share=True),
        _Column("macs_nonzero", "MACs on non-zeros", is_share=True),
        _Column("two_of_four", "2:4 as read", is_share=True),
        _Column("time", "time"),
        _Column("note", "note"),
    ]


def _says_something(column: _Column, rows: Sequence[Row]) -> bool:
    """Not empty, and no share that is nothing or everything in all rows."""
    found = {getattr(row, column.field) for row in rows} - {None, ""}
    return bool(found) and not (column.is_share and (found == {0.0} or found == {1.0}))


def _shown(value: object, is_share: bool) -> str:
    return f"{value:.0%}" if is_share and isinstance(value, float) else cell(value)
