"""The table of commands. Importing this file, and the files of the commands, loads nothing heavier than typer."""

from __future__ import annotations

from typing import Annotated

import typer

import prunec
from prunec.cli import zoo
from prunec.cli.bench import bench
from prunec.cli.compile import compile
from prunec.cli.explain import explain
from prunec.cli.inspect import inspect
from prunec.cli.plan import plan
from prunec.cli.recipes import recipes
from prunec.cli.targets import targets
from prunec.cli.verify import verify

app = typer.Typer(name="prunec", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prunec {prunec.__version__}")
        raise typer.Exit


@app.callback()
def prunec_(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Prune a trained model: smaller, measured faster, proved equivalent where it must be.

    Exit codes: 0 done; 1 a gate, a verification or a measurement said no; 2 wrong usage, bad input, unsupported.
    """


for command in (compile, inspect, explain, plan, verify, bench, targets, recipes):
    app.command()(command)
app.add_typer(zoo.app)
