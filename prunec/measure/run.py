"""Measure contenders against each other so that people believe it.

Every contender runs in its own process, pinned to the same CPUs; one works while the others are stopped. After a
warm-up they run blocks in the order A B B A: round i runs each contender once, odd rounds backwards, so that a drift
of the machine falls on all alike. A block is enough timed runs to last `block_ms`, after a tenth as many untimed ones
(at least one) that refill the caches. All of this is done in several generations of fresh processes. What is compared
is the median of each block (see `ratio`).
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prunec.diagnostics import PrunecError
from prunec.measure.contender import OWN, PRUNED, RUNNERS, Contender
from prunec.measure.generation import Blocks, Generation, Progress, Setting
from prunec.measure.machine import allowed_cpus, describe_machine, load_average
from prunec.measure.ratio import MIN_BLOCKS, RESAMPLES, ratio
from prunec.measure.results import Input, MeasurementProtocol, Measurements, Times
from prunec.measure.schedule import Schedule, plan_blocks
from prunec.measure.worker import Clock


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
    processes: int = 5,
    block_ms: float = 10.0,
    budget_s: float | None = None,
    timeout_s: float = 300.0,
    clock: Clock = "wall",
) -> Measurements:
    """Time every contender on the one batch in `feeds` and compare `subject` with each other one.

    `subject` is by default `prunec` if that runs, else `pruned_onnxruntime`, else the last contender. The `blocks` are
    divided among `processes` generations (and rounded up); there are fewer only if `budget_s` (seconds for all blocks
    together) is given and does not hold them, and the protocol says so. `timeout_s` bounds a load, a warm-up beyond
    `warmup_s`, and a block beyond its expected length. `clock` "cpu" compares processor time, which other processes
    disturb less: the time that one thread takes, and of several threads not what a user waits for.

    Raises PrunecError PC510 or PC511 for arguments that cannot be measured; GateError PC512 to PC515 if a contender
    fails, dies, hangs or babbles, and PC519 if `budget_s` is too short for any interval.
    """
    _check(contenders, feeds, threads=threads, blocks=blocks, processes=processes, warmup_s=warmup_s)
    names = [contender.name for contender in contenders]
    chosen = _subject(names, subject)
    busy = load_average()
    with tempfile.TemporaryDirectory(prefix="prunec-measure-") as folder:
        feeds_file = Path(folder) / "feeds.npz"
        np.savez(feeds_file, *feeds.values())
        cpus = tuple(allowed_cpus()[:threads])
        setting = Setting(feeds_file, tuple(feeds), threads, cpus, warmup_s, timeout_s, clock)
        found = _generations(
            contenders, setting, processes, progress or (lambda stage, done, of: None),
            partial(plan_blocks, blocks=blocks, processes=processes, block_ms=block_ms, budget_s=budget_s),
        )  # fmt: skip
    medians = {
        name: [[float(np.median(block)) / 1e6 for block in generation] for generation in generations]
        for name, generations in found.times.items()
    }
    schedule, loaded = found.schedule, found.loaded
    measured_blocks = schedule.blocks * processes
    return Measurements(
        machine=describe_machine({key: value for one in loaded.values() for key, value in one["versions"].items()}),
        protocol=MeasurementProtocol(
            subject=chosen,
            threads=threads,
            pinned_cpus=cpus if all(one["pinned"] for one in loaded.values()) else None,
            inputs={name: Input(shape=array.shape, dtype=array.dtype.name) for name, array in feeds.items()},
            order="separate processes, interleaved A B B A, the others stopped",
            warmup_s=warmup_s,
            processes=processes,
            blocks=measured_blocks,
            blocks_requested=blocks if measured_blocks < blocks else None,
            runs_per_block=schedule.runs,
            untimed_runs_per_block=schedule.untimed,
            clock=None if clock == "wall" else "processor time",
            statistic="median over the paired ratios of block medians",
            interval=f"95 % percentile bootstrap over processes and over pairs within them, {RESAMPLES} resamples",
            seed=seed,
            load_average_1min=busy,
        ),
        contenders={
            name: _times(found.times[name], loaded[name]["first_run_ns"], loaded[name]["load_ns"], found.peaks[name])
            for name in names
        },
        speedup={f"vs_{name}": ratio(medians[name], medians[chosen], seed=seed) for name in names if name != chosen},
        distributions={name: tuple(np.concatenate(values).tolist()) for name, values in medians.items()},
    )


@dataclass(frozen=True)
class _Found:
    """Times of all generations; of the last one what every contender said when it was loaded, and its peak memory."""

    times: dict[str, list[Blocks]]
    loaded: dict[str, Mapping[str, Any]]
    peaks: dict[str, int | None]
    schedule: Schedule


def _generations(
    contenders: Sequence[Contender],
    setting: Setting,
    count: int,
    report: Progress,
    plan: Callable[[Mapping[str, float]], Schedule],
) -> _Found:
    """All contenders in `count` generations; `plan` makes the schedule from what a run takes in the first one."""
    times: dict[str, list[Blocks]] = {contender.name: [] for contender in contenders}
    schedule: Schedule | None = None
    for index in range(count):
        report("warming up", index, count)
        in_turn = contenders if index % 2 == 0 else contenders[::-1]  # nobody is always the first
        with Generation(in_turn, setting) as generation:
            schedule = schedule or plan(generation.run_ns)
            found = generation.run(schedule, _rounds(report, index, schedule))
            peaks, loaded = generation.end(), generation.loaded
        for name, blocks in found.items():
            times[name].append(blocks)
    assert schedule is not None
    _rounds(report, count, schedule)(0)
    return _Found(times, loaded, peaks, schedule)


def _rounds(report: Progress, generation: int, schedule: Schedule) -> Callable[[int], None]:
    """Tell `report` about rounds over all generations, given the rounds done in this one."""
    before, total = generation * schedule.blocks, schedule.processes * schedule.blocks
    return lambda done: report("measuring", before + done, total)


def _times(generations: list[Blocks], first_run_ns: int, load_ns: int, peak: int | None) -> Times:
    """Latencies over all runs of all generations; the rest from the last one."""
    every = np.concatenate([block for generation in generations for block in generation]) / 1e6
    return Times(
        p50_ms=float(np.percentile(every, 50)),
        p90_ms=float(np.percentile(every, 90)),
        first_run_ms=first_run_ns / 1e6,
        load_ms=load_ns / 1e6,
        peak_rss_mib=None if peak is None else round(peak / 2**20, 1),
    )


def _subject(names: Sequence[str], subject: str | None) -> str:
    if subject is not None and subject not in names:
        raise PrunecError("PC510", f"no contender is called {subject!r}", hint=f"there are {', '.join(names)}")
    return subject or next((name for name in (OWN, PRUNED) if name in names), names[-1])


def _check(
    contenders: Sequence[Contender],
    feeds: Mapping[str, np.ndarray],
    *,
    threads: int,
    blocks: int,
    processes: int,
    warmup_s: float,
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
    if processes < 1:
        raise PrunecError("PC510", f"cannot measure in {processes} processes", hint="use 1 or more, better 5")
    available = len(allowed_cpus()) or os.cpu_count() or 1
    if not 1 <= threads <= available:
        raise PrunecError("PC510", f"cannot run on {threads} threads", hint=f"this process may use {available} CPUs")
    if not 0 <= warmup_s < math.inf:
        raise PrunecError("PC510", f"cannot warm up for {warmup_s} s")
    strange = [name for name, array in feeds.items() if array.dtype.hasobject]
    if strange:
        raise PrunecError("PC510", f"cannot feed arrays of Python objects: {', '.join(strange)}")
