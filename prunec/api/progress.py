"""One progress callback for every stage: what is being done, how many steps are done, and of how many."""

from __future__ import annotations

from collections.abc import Callable

from prunec.heap import release_free_memory

Progress = Callable[[str, int, int], None]
"""(what, done, of); `of` is 0 where the number of steps is not known."""


def silent(what: str, done: int, of: int) -> None:
    """Report nothing."""


def counted(progress: Progress, stage: str) -> Callable[[int, int, str], None]:
    """The callback that statistics and compensation take, (done, of, what), as a stage of `progress`."""
    return lambda done, of, what: progress(f"{stage}: {what}" if what != stage else stage, done, of)


def tidying(progress: Progress) -> Progress:
    """The same, giving free memory back to the system before each new step."""
    last = ""

    def tell(what: str, done: int, of: int) -> None:
        nonlocal last
        if what != last:
            release_free_memory()
        last = what
        progress(what, done, of)

    return tell
