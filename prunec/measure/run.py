"""Measure contenders against each other so that people believe it.

Every contender runs in its own process, pinned to the same CPUs; one works while the others are stopped. After a
warm-up they run blocks in the order A B B A: round i runs each contender once, odd rounds backwards, so that a drift
of the machine falls on all alike. A block is `untimed_runs_per_block` runs that refill the caches and then enough timed
runs to last `block_ms`. What is compared is the median of each block (see `ratio`).
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunec.diagnostics import GateError, PrunecError
from prunec.measure.client import WorkerProcess
from prunec.measure.contender import PRUNED, RUNNERS, Contender
from prunec.measure.machine import allowed_cpus, describe_machine, load_average
from prunec.measure.ratio import MIN_BLOCKS, RESAMPLES, ratio
from prunec.measure.results import Input, MeasurementProtocol, Measurements, Times

Progress = Callable[[str, int, int], None]  # stage, done, of

_UNTIMED_RUNS = 1
_MOST_RUNS = 10_000  # per block: a run below 1 us would otherwise fill the pipe with times


@dataclass(frozen=True)
class Schedule:
    """What is run, decided after the warm-up."""

    blocks: int
    runs: dict[str, int]


def measure(
    contenders: Sequence[Contender],
    feeds: Mapping[str, np.ndarray],
    *,
    threads: int = 1,
    blocks: int = 30,
    warmup_s: float = 0.5,
    seed: int = 0,
    progress: Progress | None = None,
    subject: str | None = None,
    block_ms: float = 10.0,
    budget_s: float | None = None,
    timeout_s: float = 300.0,
) -> Measurements:
    """Time every contender on the one batch in `feeds` and compare `subject` with each other one.

    `subject` is by default `prunec` if that runs, else `pruned_onnxruntime`, else the last contender. `blocks` are run
    as asked for unless `budget_s` (seconds for all blocks together) is given and does not hold them; then there are
    fewer, and the protocol says so. `timeout_s` bounds a load, a warm-up beyond `warmup_s`, and a block beyond its
    expected length.

    Raises PrunecError PC510 or PC511 for arguments that cannot be measured; GateError PC512 to PC515 if a contender
    fails, dies, hangs or babbles, and PC519 if `budget_s` is too short for any interval.
    """
    _check(contenders, feeds, threads=threads, blocks=blocks, warmup_s=warmup_s)
    names = [contender.name for contender in contenders]
    chosen = _subject(names, subject)
    cpus = allowed_cpus()[:threads]
    busy = load_average()
    report = progress or (lambda stage, done, of: None)

    with ExitStack() as stack:
        feeds_file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="prunec-measure-"))) / "feeds.npz"
        np.savez(feeds_file, *feeds.values())
        workers: dict[str, WorkerProcess] = {}
        loaded: dict[str, dict[str, Any]] = {}
        run_ns: dict[str, float] = {}
        for done, contender in enumerate(contenders):
            report(f"warming up {contender.name}", done, len(names))
            worker = workers[contender.name] = stack.enter_context(WorkerProcess(contender.name, threads=threads))
            request = _load_request(contender, feeds_file, list(feeds), threads=threads, cpus=cpus)
            loaded[contender.name] = worker.ask(request, timeout_s=timeout_s)
            warm = worker.ask({"op": "warm", "seconds": warmup_s}, timeout_s=warmup_s + timeout_s)
            run_ns[contender.name] = max(1.0, float(warm["run_ns"]))
            worker.pause()
        schedule = plan_blocks(run_ns, blocks=blocks, block_ms=block_ms, budget_s=budget_s)
        times = _interleave(workers, schedule, run_ns, timeout_s=timeout_s, report=report)
        peaks = {name: _end(worker, timeout_s=timeout_s) for name, worker in workers.items()}

    medians = {name: [float(np.median(block)) / 1e6 for block in blocks_ns] for name, blocks_ns in times.items()}
    versions = {key: value for answer in loaded.values() for key, value in answer["versions"].items()}
    return Measurements(
        machine=describe_machine(versions),
        protocol=MeasurementProtocol(
            subject=chosen,
            threads=threads,
            pinned_cpus=tuple(cpus) if all(answer["pinned"] for answer in loaded.values()) else None,
            inputs={name: Input(shape=array.shape, dtype=array.dtype.name) for name, array in feeds.items()},
            order="separate processes, interleaved A B B A, the others stopped",
            warmup_s=warmup_s,
            blocks=schedule.blocks,
            blocks_requested=blocks if schedule.blocks != blocks else None,
            runs_per_block=schedule.runs,
            untimed_runs_per_block=_UNTIMED_RUNS,
            statistic="median over the paired ratios of block medians",
            interval=f"95 % percentile bootstrap over the pairs, {RESAMPLES} resamples",
            seed=seed,
            load_average_1min=busy,
        ),
        contenders={name: _times(times[name], loaded[name], peaks[name]) for name in names},
        speedup={f"vs_{name}": ratio(medians[name], medians[chosen], seed=seed) for name in names if name != chosen},
        distributions={name: tuple(values) for name, values in medians.items()},
    )


def plan_blocks(
    run_ns: Mapping[str, float], *, blocks: int, block_ms: float, budget_s: float | None = None
) -> Schedule:
    """Timed runs per block so that each contender's block lasts `block_ms`; fewer blocks only to fit `budget_s`.

    Raises GateError PC519 if not even the six blocks that an interval needs fit.
    """
    runs = {name: min(_MOST_RUNS, max(1, math.ceil(block_ms * 1e6 / ns))) for name, ns in run_ns.items()}
    round_s = sum((runs[name] + _UNTIMED_RUNS) * ns for name, ns in run_ns.items()) / 1e9
    if budget_s is None or blocks * round_s <= budget_s:
        return Schedule(blocks, runs)
    if MIN_BLOCKS * round_s > budget_s:
        raise GateError(
            "PC519",
            f"nothing was measured: {MIN_BLOCKS} blocks take about {MIN_BLOCKS * round_s:.1f} s, "
            f"but the budget is {budget_s:g} s",
            hint="raise the budget or shrink the batch",
        )
    return Schedule(int(budget_s / round_s), runs)


def _interleave(
    workers: Mapping[str, WorkerProcess],
    schedule: Schedule,
    run_ns: Mapping[str, float],
    *,
    timeout_s: float,
    report: Progress,
) -> dict[str, list[list[int]]]:
    """Nanoseconds per contender, block and run."""
    names = list(workers)
    times: dict[str, list[list[int]]] = {name: [] for name in workers}
    for index in range(schedule.blocks):
        report("measuring", index, schedule.blocks)
        for name in names if index % 2 == 0 else names[::-1]:
            runs = schedule.runs[name]
            workers[name].resume()
            answer = workers[name].ask(
                {"op": "block", "runs": runs, "untimed": _UNTIMED_RUNS},
                timeout_s=timeout_s + (runs + _UNTIMED_RUNS) * run_ns[name] / 1e9,
            )
            workers[name].pause()
            times[name].append(answer["ns"])
    report("measuring", schedule.blocks, schedule.blocks)
    return times


def _load_request(
    contender: Contender, feeds_file: Path, names: list[str], *, threads: int, cpus: list[int]
) -> dict[str, Any]:
    return {
        "op": "load",
        "kind": contender.kind,
        "model": os.fspath(contender.model.resolve()),
        "feeds": os.fspath(feeds_file),
        "names": names,
        "threads": threads,
        "cpus": cpus,
        "parent": os.getpid(),
    }


def _end(worker: WorkerProcess, *, timeout_s: float) -> int | None:
    """Peak resident bytes of the worker, which then exits."""
    worker.resume()
    peak: int | None = worker.ask({"op": "end"}, timeout_s=timeout_s)["peak_rss_bytes"]
    return peak


def _times(blocks_ns: list[list[int]], loaded: Mapping[str, Any], peak: int | None) -> Times:
    every = np.concatenate([np.asarray(block, np.float64) for block in blocks_ns]) / 1e6
    return Times(
        p50_ms=float(np.percentile(every, 50)),
        p90_ms=float(np.percentile(every, 90)),
        first_run_ms=loaded["first_run_ns"] / 1e6,
        load_ms=loaded["load_ns"] / 1e6,
        peak_rss_mib=None if peak is None else round(peak / 2**20, 1),
    )


def _subject(names: Sequence[str], subject: str | None) -> str:
    if subject is not None and subject not in names:
        raise PrunecError("PC510", f"no contender is called {subject!r}", hint=f"there are {', '.join(names)}")
    return subject or next((name for name in ("prunec", PRUNED) if name in names), names[-1])


def _check(
    contenders: Sequence[Contender], feeds: Mapping[str, np.ndarray], *, threads: int, blocks: int, warmup_s: float
) -> None:
    """Refuse what cannot be measured before anything is started."""
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) != len(names):
        raise PrunecError("PC510", f"contenders need names of their own, not {names}")
    for contender in contenders:
        if contender.kind not in RUNNERS and ":" not in contender.kind:
            raise PrunecError(
                "PC511",
                f"no way to run models of kind {contender.kind!r}",
                where=contender.name,
                hint=f"known kinds: {', '.join(sorted(RUNNERS))}; or name a class as package.module:Class",
            )
        if not contender.model.exists():
            raise PrunecError("PC510", f"{contender.model} does not exist", where=contender.name)
    if blocks < MIN_BLOCKS:
        raise PrunecError("PC510", f"{blocks} blocks give no 95 % interval", hint=f"use {MIN_BLOCKS} or more")
    available = len(allowed_cpus()) or os.cpu_count() or 1
    if not 1 <= threads <= available:
        raise PrunecError("PC510", f"cannot run on {threads} threads", hint=f"this process may use {available} CPUs")
    if not 0 <= warmup_s < math.inf:
        raise PrunecError("PC510", f"cannot warm up for {warmup_s} s")
    strange = [name for name, array in feeds.items() if array.dtype.hasobject]
    if strange:
        raise PrunecError("PC510", f"cannot feed arrays of Python objects: {', '.join(strange)}")
