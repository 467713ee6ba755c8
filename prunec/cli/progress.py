"""Progress on stderr: a line that is rewritten on a terminal, one line per stage elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunec.api.progress import Progress


@contextmanager
def shown() -> Iterator[Progress]:
    """The callback for one command; what it wrote on a terminal is wiped at the end."""
    with _notes():
        yield from _shown()


def _shown() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield _one_line_per_stage()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def report(what: str, done: int, of: int) -> None:
            bars.update(task, description=what[:60], completed=done, total=of or None)

        yield report


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"note: {record.getMessage()}\n")  # rich lets it through above its own lines


@contextmanager
def _notes() -> Iterator[None]:
    """What the library says on the way is written and stays."""
    logger, notes = logging.getLogger("prunec"), _Notes(logging.INFO)
    level = logger.level
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(level)


def _one_line_per_stage() -> Progress:
    """Each stage once; details after a colon ("compensating: conv1") change too often for a log."""
    seen: set[str] = set()

    def report(what: str, done: int, of: int) -> None:
        stage = what.partition(":")[0]
        if stage not in seen:
            seen.add(stage)
            sys.stderr.write(f"{stage} …\n")
            sys.stderr.flush()

    return report
