"""`prunec inspect`: the channel groups of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prunec.cli.answer import Answer
from prunec.cli.options import InputShape, Json, Model, Structures, input_shapes

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.results import GroupInfo, Inspection

Format = Literal["text", "json", "dot"]
_NAMES = 3


def inspect(
    model: Model,
    format: Annotated[Format, typer.Option("--format", help="text, json, or dot for Graphviz.")] = "text",
    structures: Structures = None,
    input_shape: InputShape = None,
    json: Json = False,
) -> Answer:
    """List the channel groups of MODEL: what must live or die together, what it costs, and what is pinned and why.

    prunec inspect model.onnx --format dot | dot -Tsvg > groups.svg
    """
    from prunec.api.inspection import describe
    from prunec.api.opening import open_model
    from prunec.api.stages import inspected
    from prunec.graph.view import to_dot
    from prunec.package.jsonfile import dumps
    from prunec.plan.structures import parse_structures

    opened = open_model(model, input_shapes(input_shape))
    found = describe(opened, structures)
    document = found.to_json()
    if format == "dot":
        analysis = opened.analysis if structures is None else inspected(opened, parse_structures(structures))
        return Answer(document, lambda out: write(out, to_dot(analysis, found.model)))
    if format == "json":
        return Answer(document, lambda out: write(out, dumps(document)))
    return Answer(document, lambda out: show(out, found))


def write(out: Console, text: str) -> None:
    """Text for another program: no wrapping, no colours."""
    out.file.write(text)


def show(out: Console, found: Inspection) -> None:
    """One line about the model and a table of its groups, the expensive ones first."""
    from rich.table import Table
    from rich.text import Text

    from prunec.cli.run import show_warnings
    from prunec.report import units

    show_warnings(found.warnings)
    parameters, macs = units.count(found.parameters), units.count(found.macs)
    out.print(Text(f"{found.model}: {found.nodes} nodes, {parameters} parameters, {macs} multiply-accumulates"))
    table = Table(title="channel groups", title_justify="left")
    for heading in ("group", "channels", "class", "cost"):
        table.add_column(heading, justify="left" if heading in ("group", "class") else "right")
    for heading in ("made by", "used by", "can be cut"):
        table.add_column(heading, overflow="fold")
    for group in sorted(found.groups, key=lambda group: -group.cost_share):
        verdict = Text("yes", style="green")
        if group.pinned is not None:
            verdict = Text(f"no: {group.pinned.node} {group.pinned.reason} [{group.pinned.code}]")
        made, used = _names(group, "producer"), _names(group, "consumer")
        cost = units.share(group.cost_share)
        table.add_row(group.id, str(group.size), group.kind, cost, Text(made), Text(used), verdict)
    out.print(table)
    if found.blocks:
        blocks = Table("block", "kind", "from", "to", title="blocks that can be removed", title_justify="left")
        for block in found.blocks:
            blocks.add_row(*map(Text, (block.name, block.kind, block.input, block.output)))
        out.print(blocks)
    free = [group for group in found.groups if group.pinned is None]
    out.print(Text(f"{len(free)} of {len(found.groups)} groups can be cut. `prunec explain MODEL LAYER` says more."))


def _names(group: GroupInfo, role: str) -> str:
    names = list(dict.fromkeys(member.node for member in group.members if member.role == role))
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
