"""Time, Ctrl-C and progress of a recovery."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Tell = Callable[[int, int, str], None]
"""(done, of, what)."""
Now = Callable[[], float]


class Clock:
    """A deadline that Ctrl-C brings forward. `limit_s` None: there is none, as many steps are made as a plan says.

    `now`: seconds, by default on the wall.
    """

    def __init__(self, limit_s: float | None, tell: Tell | None = None, now: Now = time.monotonic) -> None:
        self.now, self._start = now, now()
        self._limit, self._tell = limit_s, tell
        self.was_interrupted = False

    @property
    def elapsed_s(self) -> float:
        return self.now() - self._start

    @property
    def left_s(self) -> float | None:
        return None if self._limit is None else max(self._limit - self.elapsed_s, 0.0)

    def is_over(self) -> bool:
        return self.was_interrupted or (self._limit is not None and self.elapsed_s >= self._limit)

    def tell(self, done: int, of: int, what: str) -> None:
        left = self.left_s
        if self._tell is not None:
            self._tell(done, of, what if left is None else f"{what}, at most {left / 60:.1f} min left")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """The first Ctrl-C ends the training and nothing else, the second is a KeyboardInterrupt."""
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.was_interrupted:
                raise KeyboardInterrupt
            self.was_interrupted = True
            logging.getLogger("prunec").info("training ends here, the best state is kept; Ctrl-C again stops prunec")

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
