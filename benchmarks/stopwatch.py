"""How long a call spends in named functions of prunec, for benchmarks: their names are replaced while it runs."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


@contextmanager
def stopwatch(stages: Mapping[str, Sequence[str]]) -> Iterator[dict[str, float]]:
    """Seconds per stage, summed over its functions ("package.module:name", where the caller looks them up).

    A function that runs inside another one's time counts for both. Raises AttributeError for a name that is not there.
    """
    seconds = dict.fromkeys(stages, 0.0)
    with ExitStack() as stack:
        for stage, names in stages.items():
            for name in names:
                module, _, attribute = name.partition(":")
                owner = importlib.import_module(module)
                timed = _timed(getattr(owner, attribute), seconds, stage)
                stack.enter_context(mock.patch.object(owner, attribute, timed))
        yield seconds


def _timed(function: Callable[..., Any], seconds: dict[str, float], stage: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    return call
