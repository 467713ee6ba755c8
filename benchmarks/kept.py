"""Rows that were computed before, in a file: a comparison takes hours and goes on where it was interrupted.

A row is found again by what it depends on: model, case, tool with its version, method, and the arguments that draw data
and set limits. Whoever changes code that rows depend on starts another file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


class KeptRows(Generic[R]):
    """Rows of one kind, `row`. `path` None keeps nothing."""

    def __init__(self, row: type[R], path: Path | None) -> None:
        self.row, self.path = row, path
        self._rows: dict[str, list[dict[str, object]]] = {}
        if path is not None and path.is_file():
            self._rows = json.loads(path.read_text(encoding="utf-8"))

    def rows(self, key: Iterable[object], compute: Callable[[], Iterable[R]]) -> list[R]:
        """The rows kept under `key`, else what `compute` gives, written down at once."""
        name = " | ".join(map(str, key))
        if name not in self._rows:
            self._rows[name] = [asdict(row) for row in compute()]
            if self.path is not None:
                partial = self.path.with_name(f".{self.path.name}")
                partial.write_text(json.dumps(self._rows, indent=1), encoding="utf-8")
                partial.replace(self.path)
        return [self.row(**fields) for fields in self._rows[name]]
