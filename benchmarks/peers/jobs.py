"""Hand a model and calibration data to a peer, run it under limits, take the pruned file back.

A peer is given the file as it is in the zoo, except that weights in Constant nodes become initializers (tools look for
weights there), and all calibration samples, those that prunec holds out too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from benchmarks.peers.catalogue import Case
from benchmarks.subject import Subject
from prunec.backends.onnx.session import make_session, run

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = 4
"""Dense answers that a peer's own form of the model is checked against."""
WALL_FACTOR = 6
"""How long a process may wait for a busy machine, in units of its processor time."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class PeerFailed(Exception):
    """A peer did not give a model; the text says why and stands in the table."""


@dataclass(frozen=True)
class Limits:
    """Of a peer's process: processor time and address space."""

    seconds: int = 600
    memory_bytes: int = 10 << 30


@dataclass(frozen=True)
class Answer:
    """A pruned model and the processor time it took."""

    model: ir.Model
    seconds: float


@contextmanager
def exported(subject: Subject) -> Iterator[Path]:
    """A folder with what all peers read of a subject; it goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="prunec-peers-") as name:
        folder = Path(name)
        model = ir.load(subject.found.path)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        ir.save(model, folder / "model.onnx")
        batches = [*subject.calibration.fit(), *subject.calibration.held_out()]
        arrays = {f"{i:06}/{name}": array for i, batch in enumerate(batches) for name, array in batch.items()}
        np.savez(folder / "samples.npz", **arrays)
        feeds = {name: array[:ANSWERS] for name, array in batches[0].items()}
        np.savez(folder / "answers.npz", **run(make_session(folder / "model.onnx"), feeds))
        yield folder


def ask(python: Path, runner: str, folder: Path, subject: Subject, case: Case, method: str, limits: Limits) -> Answer:
    """Run `python -m runner` on one job.

    Raises:
        PeerFailed: it raised an exception, met a limit, or wrote a file that is no model.
    """
    job = {
        "model": subject.name, "method": method, "kind": case.kind, "share": case.share, "seed": subject.seed,
        "limit_s": limits.seconds, "memory_bytes": limits.memory_bytes,
    }  # fmt: skip
    result, pruned = folder / "result.json", folder / "pruned.onnx"
    for left in (result, pruned):
        left.unlink(missing_ok=True)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [str(python), "-m", runner, str(folder)], cwd=folder, env=environment, check=False,
            capture_output=True, text=True, timeout=limits.seconds * WALL_FACTOR,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"not done after {limits.seconds * WALL_FACTOR} s") from error
    found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    if done.returncode or "seconds" not in found:
        raise PeerFailed(found.get("failed") or _ending(done, limits))
    return Answer(read(pruned), found["seconds"])


def read(path: Path) -> ir.Model:
    """A peer's file without the weights that nothing reads any more, which some leave in it."""
    model = ir.load(path)
    RemoveUnusedNodesPass()(model)
    return model


def _ending(done: subprocess.CompletedProcess[str], limits: Limits) -> str:
    """Why a process ended that could not say it."""
    if done.returncode == -signal.SIGXCPU:
        return f"over the limit of {limits.seconds} s of processor time"
    lines = done.stderr.strip().splitlines()
    ending = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return f"{ending}: {lines[-1]}" if lines else ending
