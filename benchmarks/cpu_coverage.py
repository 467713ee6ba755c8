"""Which graphs of a folder are generated whole, which in parts, and what is missing: `cpu_models --coverage`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.graph_files import read_graph
from prunec.backends.cpu.isa import host_isa
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.parts import split_model
from prunec.diagnostics import PrunecError


@dataclass
class Coverage:
    graph: str
    nodes: int
    verdict: str
    parts: int
    missing: str


def covered(path: Path) -> Coverage:
    """Whether a graph is generated whole, in parts, or refused, and why."""
    name = path.name.removesuffix(".gz").removesuffix(".onnx")
    try:
        ready = prepare(read_graph(path))
        split = split_model(ready, host_isa())
    except PrunecError as refusal:
        return Coverage(name, 0, "refused", 0, str(refusal.diagnostic))
    reasons = Counter(f"{refusal.node.op_type}: {refusal.reason}" for refusal in split.refusals)
    missing = "; ".join(f"{count}× {reason}" for reason, count in reasons.most_common(4))
    verdict = "generated" if split.is_whole else "in parts"
    return Coverage(name, len(ready.graph), verdict, len(split.parts), missing)
