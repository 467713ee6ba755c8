"""`prunec explain`: one layer, and what of it can be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.answer import Answer
from prunec.cli.options import InputShape, Json, Model, Structures, input_shapes

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.results import Explanation


def explain(
    model: Model,
    layer: Annotated[str, typer.Argument(metavar="LAYER", help="Name of a node or tensor.", show_default=False)],
    structures: Structures = None,
    input_shape: InputShape = None,
    json: Json = False,
) -> Answer:
    """Say which channels pass through LAYER of MODEL, with what they are coupled, and why they can or cannot be cut."""
    from prunec.api import explanation

    found = explanation.explain(model, layer, input_shapes=input_shapes(input_shape), structures=structures)
    return Answer(found.to_json(), lambda out: show(out, found))


def show(out: Console, found: Explanation) -> None:
    """What the layer is, a table of its groups, and the verdict in sentences."""
    from rich.table import Table
    from rich.text import Text

    from prunec.report import units

    cost = f"{units.count(found.macs)} multiply-accumulates ({units.share(found.macs_share)} of the model)"
    shapes = f"{', '.join(found.input_shapes)} → {', '.join(found.output_shapes)}"
    out.print(Text(f"{found.layer}: {found.op_type}, {shapes}"))
    out.print(Text(f"{units.count(found.parameters)} parameters, {cost}"))
    if found.parts:
        table = Table("group", "this layer")
        table.add_column("channels", justify="right")
        for heading in ("through", "made together with", "used by", "pinned by"):
            table.add_column(heading, overflow="fold")
        for part in found.parts:
            pinned = "" if part.pinned is None else f"{part.pinned.node} [{part.pinned.code}]"
            lists = (", ".join(names) for names in (part.tensors, part.coupled_with, part.used_by))
            table.add_row(part.group, part.does, str(part.size), *(Text(text) for text in lists), Text(pinned))
        out.print(table)
    for sentence in found.verdict:
        out.print(Text(sentence))
