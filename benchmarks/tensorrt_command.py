"""What the commands about TensorRT packages share: their arguments, and the loop that fills a table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.kept import KeptRows
from benchmarks.tables import line, markdown
from benchmarks.tensorrt_models import ELIGIBLE, EXPECTED, WORTHWHILE
from prunec.diagnostics import PrunecError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+")
    parser.add_argument("--graphs", type=Path, help="the models are files of this folder, not of the zoo")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--markdown", type=Path)


def add_package_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of commands that compile the models."""
    add_model_arguments(parser)
    parser.add_argument("--solver", default="fast")
    parser.add_argument("--layers", nargs="+", choices=[EXPECTED, WORTHWHILE, ELIGIBLE], default=[EXPECTED])
    parser.add_argument("--test-samples", type=int)
    parser.add_argument("--no-quality", action="store_true", help="do not judge the models by their metric")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")


def fill_table(
    row: type[R],
    cases: Iterable[tuple[str, ...]],
    compute: Callable[..., Iterable[R]],
    arguments: argparse.Namespace,
    drawn: Sequence[object],
) -> int:
    """Print and keep the rows `compute(*case, arguments)` of every case; the exit code, 1 where one was refused.

    `drawn`: what else rows depend on.
    """
    kept, table, failed = KeptRows(row, arguments.keep), list[R](), 0
    for case in cases:
        try:
            table += kept.rows((*case, *drawn), partial(compute, *case, arguments))
        except PrunecError as refusal:
            failed += 1
            print(f"{', '.join(case)}: refused: {refusal.diagnostic}", flush=True)
            continue
        print(line(table[-1]), flush=True)
        if arguments.markdown:
            arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 1 if failed else 0
