"""What large models cost: time of analysis, plan and cut against the number of nodes, and the memory to cut 2 GB.

    python -m benchmarks.scale [--times] [--memory [GIGABYTES]]

Times are CPU seconds of one process with one thread. The memory is the peak resident set of a fresh process that reads
a model whose weights lie in a file beside it, analyses it, cuts half of every group and saves the result.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from benchmarks.scale_graphs import GRAPHS, write_large
from prunec.criteria import ScoreContext, create
from prunec.frontend.onnx import load
from prunec.graph import Analysis, analyse
from prunec.package.writer import save_model
from prunec.passes.canonicalise import canonicalise
from prunec.passes.slice_channels import slice_channels
from prunec.plan.budget import Budget
from prunec.plan.planner import Planner

Result = TypeVar("Result")
STEPS = ("canonicalise", "analyse", "plan", "cut")


def times(model: ir.Model) -> dict[str, float]:
    """CPU seconds of each step."""
    taken: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = step()
        taken[name] = time.process_time() - start
        return result

    canonical = timed("canonicalise", lambda: canonicalise(model))
    analysis = timed("analyse", lambda: analyse(canonical))
    context = ScoreContext(canonical, analysis)
    budget = Budget.of("params", 0.6)
    plan = timed("plan", lambda: Planner(canonical, analysis, create("l1"), context, round_to=1).least_cut(budget))
    timed("cut", lambda: slice_channels(canonical, analysis, analysis.alive(plan.keeps())))
    return taken


def first_half(analysis: Analysis) -> np.ndarray:
    """bool per class: every free group keeps the first half of its channels."""
    keeps = {
        group.id: np.arange(group.size) < (group.size + 1) // 2 for group in analysis.groups if group.pinned is None
    }
    return analysis.alive(keeps)


def cut_file(source: Path, target: Path) -> dict[str, float]:
    """Read, analyse, cut, save; what this process held at most, in MB, and seconds."""
    start = time.perf_counter()
    canonical = canonicalise(load(source).model)
    analysis = analyse(canonical)
    cut = slice_channels(canonical, analysis, first_half(analysis))
    save_model(cut, target, inline_limit_bytes=0)
    return {"peak_mb": peak_mb(), "seconds": time.perf_counter() - start}


def peak_mb() -> float:
    """Peak resident set of this process. `ru_maxrss` passes through fork and exec, so Linux's own mark goes first."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cut_in_a_process(source: Path, target: Path) -> dict[str, float]:
    """`cut_file` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scale", "--cut", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def memory(gigabytes: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_large(folder / "large.onnx", gigabytes)
        found = cut_in_a_process(folder / "large.onnx", folder / "cut.onnx")
        left = (folder / "cut.onnx.data").stat().st_size
        print(
            f"{written / 1e9:.2f} GB → {left / 1e9:.2f} GB: at most {found['peak_mb']:.0f} MB resident, "
            f"{found['seconds']:.1f} s"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="What large models cost.")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--memory", type=float, nargs="?", const=2.0, metavar="GIGABYTES")
    parser.add_argument("--cut", type=Path, nargs=2, metavar=("MODEL", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cut:
        print(json.dumps(cut_file(*arguments.cut)))
        return 0
    if arguments.times or arguments.memory is None:
        print("| graph | nodes | " + " | ".join(STEPS) + " |\n" + "|---" * (2 + len(STEPS)) + "|")
        for name, (build, size) in GRAPHS.items():
            for n in (size // 2, size):
                model = build(n)
                taken = times(model)
                print(f"| {name} | {len(model.graph)} | " + " | ".join(f"{taken[step]:.2f} s" for step in STEPS) + " |")
    if arguments.memory is not None or not arguments.times:
        memory(arguments.memory or 2.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
