"""Rows of a benchmark, dataclasses all of one kind, as lines on the terminal and as a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Cell = Callable[[object], str]
R = TypeVar("R", bound="DataclassInstance")


def cell(value: object) -> str:
    """Numbers with three digits, nothing as a dash."""
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def line(row: DataclassInstance, show: Cell = cell) -> str:
    return "  ".join(f"{field.name}={show(getattr(row, field.name))}" for field in fields(row))


def markdown(rows: Sequence[DataclassInstance], show: Cell = cell, columns: Sequence[str] = ()) -> str:
    """One column per field, or those of `columns`. `rows` is not empty."""
    names = list(columns) or [field.name for field in fields(rows[0])]
    lines = [names, ["---"] * len(names), *([show(getattr(row, name)) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(parts)} |\n" for parts in lines)


def told(rows: Iterable[R], path: Path | None, verdicts: Callable[[Sequence[R]], Iterable[str]]) -> list[R]:
    """The rows, each printed as it comes, and the table so far in `path`; what they amount to below, and at the end."""
    found = list[R]()
    for row in rows:
        found.append(row)
        print(line(row), flush=True)
        if path is not None:
            path.write_text(markdown(found) + "\n" + "".join(verdicts(found)), encoding="utf-8")
    print(*verdicts(found), sep="", end="")
    return found
