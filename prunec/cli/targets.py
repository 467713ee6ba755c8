"""`prunec targets`: what can be compiled for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunec.cli.answer import Answer
from prunec.cli.options import Json

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.target_list import Targets


def targets(json: Json = False) -> Answer:
    """List the targets, and what is missing for those that cannot be used."""
    from prunec.api import target_list

    found = target_list.targets()
    return Answer(found.to_json(), lambda out: show(out, found))


def show(out: Console, found: Targets) -> None:
    from rich.table import Table

    table = Table("target", "what", "patterns", "status", "how to get it")
    for row in found.targets:
        table.add_row(row.name, row.summary, ", ".join(row.patterns), row.status, row.how)
    out.print(table)
