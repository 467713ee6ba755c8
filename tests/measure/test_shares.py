"""Many models beside one, with runners that take a known time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prunec.cache import Cache
from prunec.measure.shares import Candidate, Stopwatch

SLEEPER = "tests.measure.fake_runners:Sleeper"
WORKER = "tests.measure.fake_runners:Worker"
"""Their files hold milliseconds."""
FAST = {"blocks": 6, "processes": 1, "warmup_s": 0.0, "block_ms": 5.0}


def written(folder: Path, ms: float, log: list[float]) -> Candidate:
    @contextlib.contextmanager
    def write() -> Iterator[Path]:
        log.append(ms)
        path = folder / f"{ms}.onnx"
        path.write_text(str(ms))
        yield path

    return str(ms), write


def stopwatch(folder: Path, *, cache: Cache | None = None, identity: str = "model") -> Stopwatch:
    dense = folder / "dense.onnx"
    dense.write_text("20")
    return Stopwatch(
        dense,
        {"x": np.zeros(1, np.float32)},
        identity=identity,
        threads=1,  # some machines have no more
        cache=cache,
        kind=WORKER,
        dense_kind=WORKER,
    )


def test_a_share_is_time_over_the_dense_time(tmp_path: Path) -> None:
    log: list[float] = []
    candidates = [written(tmp_path, ms, log) for ms in (10, 40, 20, 10, 10, 5)]  # more than go at once
    found = stopwatch(tmp_path).shares(candidates, how=FAST)
    expected = [0.5, 2.0, 1.0, 0.5, 0.5, 0.25]
    assert [one.median for one in found] == pytest.approx(expected, rel=0.4)  # others work here too
    assert all(one.ci95[0] <= one.median <= one.ci95[1] for one in found)
    assert 20 <= found[0].dense_ms < 60


def test_what_was_measured_is_kept_for_this_model_only(tmp_path: Path) -> None:
    log: list[float] = []
    cache = Cache(tmp_path / "cache")
    first = stopwatch(tmp_path, cache=cache).shares([written(tmp_path, 5, log)], how=FAST)
    again = stopwatch(tmp_path, cache=cache).shares([written(tmp_path, 5, log)], how=FAST)
    assert again == first and log == [5]
    stopwatch(tmp_path, cache=cache, identity="other").shares([written(tmp_path, 5, log)], how=FAST)
    stopwatch(tmp_path, cache=cache).shares([written(tmp_path, 5, log)], how={**FAST, "blocks": 8})
    assert log == [5, 5, 5]


def test_progress_counts_models(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    candidates = [written(tmp_path, ms, []) for ms in (1, 2)]
    stopwatch(tmp_path).shares(candidates, how=FAST, progress=lambda done, of: told.append((done, of)))
    assert told == [(0, 2), (2, 2)]


def test_one_thread_is_timed_by_its_processor_time(tmp_path: Path) -> None:
    """A runner that sleeps twice as long as another takes as much of it: next to none."""
    dense = tmp_path / "dense.onnx"
    dense.write_text("20")
    watch = Stopwatch(
        dense, {"x": np.zeros(1, np.float32)}, identity="model", threads=1, kind=SLEEPER, dense_kind=SLEEPER
    )
    short = {**FAST, "block_ms": 0.2}  # of processor time, of which a run takes next to none
    (found,) = watch.shares([written(tmp_path, 40, [])], how=short)
    assert found.dense_ms < 2
