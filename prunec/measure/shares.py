"""Times of many models as shares of one model's time, a few beside it at once, each set kept for the next call.

What is kept depends on the models (a key of the caller's), the input, the threads and the machine: CPU, instruction
sets, system and runtime. One thread is timed by the processor time that it takes, several by the clock on the wall. A
machine that was busy then is not known to be so now; `--no-cache` times everything anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from prunec.cache import Cache
from prunec.measure.contender import DENSE, Contender
from prunec.measure.machine import describe_machine
from prunec.measure.run import measure

AT_ONCE = 5
"""Models beside the dense one: each is a process."""
QUICK = {"blocks": 12, "processes": 1, "warmup_s": 0.15, "block_ms": 8.0}
"""For one of many models; the differences between processes, a percent or so, average out in the fit."""
SURE = {"blocks": 30, "processes": 3, "warmup_s": 0.3, "block_ms": 10.0}


@dataclass(frozen=True)
class Share:
    """Time over the dense model's: median and 95 % interval of the paired ratios; and the dense model's own."""

    median: float
    ci95: tuple[float, float]
    dense_ms: float

    @property
    def width(self) -> float:
        return self.ci95[1] - self.ci95[0]


Candidate = tuple[str, Callable[[], AbstractContextManager[Path]]]
"""A key that says what the model is, and what writes it to a file for as long as it is needed."""


class Watch(Protocol):
    """Whatever knows times of candidates."""

    def shares(
        self,
        candidates: Sequence[Candidate],
        *,
        how: Mapping[str, float],
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Share]:
        """Of the dense model's time, in the order of `candidates`."""


class Stopwatch:
    """Times models beside `dense`; `kind` and `dense_kind` are rows of `contender.RUNNERS`.

    `identity` names the dense model and how cut ones are made from it.
    """

    def __init__(
        self,
        dense: Path,
        feeds: Mapping[str, np.ndarray],
        *,
        identity: str,
        threads: int,
        seed: int = 0,
        cache: Cache | None = None,
        kind: str = "onnxruntime",
        dense_kind: str = "onnxruntime",
    ) -> None:
        self._kind, self._dense_kind = kind, dense_kind
        self._dense, self._feeds, self._threads, self._seed, self._cache = dense, dict(feeds), threads, seed, cache
        shapes = {name: [list(array.shape), str(array.dtype)] for name, array in feeds.items()}
        machine = describe_machine({"onnxruntime": version("onnxruntime")}).to_json()
        self._about = json.dumps(
            ["time shares 3", kind, dense_kind, identity, shapes, threads, machine], sort_keys=True
        )

    def shares(
        self,
        candidates: Sequence[Candidate],
        *,
        how: Mapping[str, float],
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Share]:
        """In the order of `candidates`. GateError PC512 to PC515 where one cannot be run."""
        keys = [self._key(name, how) for name, _ in candidates]
        found = {number: share for number, key in enumerate(keys) if (share := self._read(key)) is not None}
        missing = [number for number in range(len(candidates)) if number not in found]
        for first in range(0, len(missing), AT_ONCE):
            progress(len(found), len(candidates))
            numbers = missing[first : first + AT_ONCE]
            for number, share in zip(numbers, self._measure([candidates[n] for n in numbers], how), strict=True):
                found[number] = share
                if self._cache is not None:
                    self._cache.write(keys[number], {"share": np.array([share.median, *share.ci95, share.dense_ms])})
        progress(len(found), len(candidates))
        return [found[number] for number in range(len(candidates))]

    def _measure(self, candidates: Sequence[Candidate], how: Mapping[str, float]) -> Iterator[Share]:
        with contextlib.ExitStack() as files:
            contenders = [Contender(DENSE, self._dense, self._dense_kind)]
            contenders += [
                Contender(f"cut_{number}", files.enter_context(write()), self._kind)
                for number, (_, write) in enumerate(candidates)
            ]
            result = measure(
                contenders, self._feeds, threads=self._threads, seed=self._seed, subject=DENSE,
                clock="cpu" if self._threads == 1 else "wall", **how,  # type: ignore[arg-type]
            )  # fmt: skip
        dense_ms = result.contenders[DENSE].p50_ms
        for contender in contenders[1:]:
            ratio = result.speedup[f"vs_{contender.name}"]  # of the cut model's time over the dense one's
            yield Share(ratio.median, ratio.ci95, dense_ms)

    def _key(self, name: str, how: Mapping[str, float]) -> str:
        return hashlib.sha256(f"{self._about}\0{name}\0{json.dumps(how, sort_keys=True)}".encode()).hexdigest()

    def _read(self, key: str) -> Share | None:
        entry = None if self._cache is None else self._cache.read(key)
        if entry is None:
            return None
        median, low, high, dense_ms = entry[0]["share"].tolist()
        return Share(median, (low, high), dense_ms)
