"""`prunec recipes`: named combinations of criterion, scope and compensation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunec.cli.answer import Answer
from prunec.cli.options import Json

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.listing import Recipes


def recipes(json: Json = False) -> Answer:
    """List the packaged recipes; --recipe takes one of them, or a YAML file with the same keys."""
    from prunec.api import listing

    found = listing.recipes()
    return Answer(found.to_json(), lambda out: show(out, found))


def show(out: Console, found: Recipes) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("recipe", "criterion", "scope", "compensation", "what", "paper")
    for row in found.recipes:
        name = f"{row.name} (default)" if row.name == found.default else row.name
        texts = (row.criterion, row.scope, row.compensation, row.description, row.paper)
        table.add_row(name, *(Text(text) for text in texts))
    out.print(table)
