"""What a command returns: the document for --json, and how to show it to a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 160
"""Columns where the output is no terminal: a pipe or a file has no width, and a table must not be cut."""


@dataclass(frozen=True)
class Answer:
    """`show` prints to the console it is given; `exit_code` is 1 where the answer is a no."""

    document: Any
    show: Callable[[Console], None]
    exit_code: int = 0


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, which prints what it is given: names and hints have brackets and colons."""
    import sys

    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)
