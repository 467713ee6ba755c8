"""Progress on stderr: a line that is rewritten on a terminal, elsewhere one per stage and a count now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunec.api.progress import Progress

QUIET_S = 30.0
"""A log is told no more often how far a stage is."""


@contextmanager
def shown() -> Iterator[Progress]:
    """The callback for one command; what it wrote on a terminal is wiped at the end."""
    with _notes():
        yield from _shown()


def _shown() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield lines_for_a_log()
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


def lines_for_a_log(clock: Callable[[], float] = time.monotonic) -> Progress:
    """Each stage once, and how far it is where it takes longer than `QUIET_S`.

    Details after a colon ("compensating: conv1") change too often for a log.
    """
    seen: set[str] = set()
    last = clock()

    def report(what: str, done: int, of: int) -> None:
        nonlocal last
        stage = what.partition(":")[0]
        is_new, is_due = stage not in seen, of > 0 and clock() - last >= QUIET_S
        if is_new or is_due:
            seen.add(stage)
            last = clock()
            sys.stderr.write(f"{stage} …\n" if is_new else f"{stage} … {done} of {of}\n")
            sys.stderr.flush()

    return report
