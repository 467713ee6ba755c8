"""Which models are generated whole, which in parts with nodes in ONNX Runtime, which are refused, and why.

    python -m benchmarks.cpu_coverage FOLDER zoo [--gib 8] [--seconds 300] [--markdown table.md]

Folders of graphs, files, `zoo` for every model of the zoo, or its models by name. Nothing is compiled: this asks the
lowering. Each model has a process of its own that may take so much memory and time; one that takes more is a row that
says so. Free axes get the lengths of the zoo's table, or those of `zoo_shapes`; a free batch is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import onnx_ir as ir

import prunec.models as zoo
from benchmarks.graph_files import graph_files, graph_name, read_graph
from benchmarks.tables import line, markdown
from benchmarks.zoo_shapes import SHAPES
from prunec.backends.cpu.isa import AVX512
from prunec.backends.cpu.lower.prepare import prepare
from prunec.backends.cpu.parts import split_model
from prunec.diagnostics import PrunecError


@dataclass
class Coverage:
    model: str
    nodes: int
    verdict: str
    parts: int
    missing: str


def main() -> int:
    parser = argparse.ArgumentParser(description="How much of which models has generated code.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--gib", type=float, default=8.0, help="address space of one model's process")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows = []
    for model in named(arguments.models):
        rows.append(bounded(model, arguments.gib, arguments.seconds))
        print(line(rows[-1]), flush=True)
    counts = Counter(row.verdict for row in rows)
    print("# " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()), file=sys.stderr)
    if arguments.markdown and rows:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


def named(models: Sequence[str]) -> list[str]:
    """Folders as their files, `zoo` as its models."""
    found: list[str] = []
    for model in models:
        if Path(model).is_dir():
            found += [str(path) for path in graph_files(Path(model))]
        else:
            found += [entry.name for entry in zoo.entries()] if model == "zoo" else [model]
    return found


def bounded(model: str, gib: float, seconds: float) -> Coverage:
    """`covered` in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(model, int(gib * 2**30), sender))
    process.start()
    sender.close()
    row, is_late = None, not receiver.poll(seconds)
    with contextlib.suppress(EOFError):  # it ended without an answer
        row = None if is_late else receiver.recv()
    process.kill()
    process.join()
    reason = f"took more than {seconds:g} s" if is_late else f"ended before it was done, within {gib:g} GiB"
    return row or Coverage(graph_name(model), 0, "not known", 0, reason)


def _work(model: str, limit: int, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        sender.send(covered(model))
    except MemoryError:
        sender.send(Coverage(graph_name(model), 0, "not known", 0, f"needs more than {limit / 2**30:g} GiB"))


def covered(model: str) -> Coverage:
    """Whether a model is generated whole, in parts, or refused, and why."""
    shapes: Mapping[str, Sequence[int]] = {}
    if Path(model).is_file():
        loaded = read_graph(Path(model))
    else:
        loaded = ir.load(zoo.get(model).path)
        shapes = SHAPES.get(model) or zoo.entry(model).static_inputs
    try:
        ready = prepare(loaded, shapes)
        split = split_model(ready, AVX512)
    except PrunecError as refusal:
        return Coverage(graph_name(model), 0, "refused", 0, str(refusal.diagnostic))
    reasons = Counter(f"{refusal.node.op_type}: {refusal.reason}" for refusal in split.refusals)
    missing = "; ".join(f"{count}× {reason}" for reason, count in reasons.most_common(4))
    verdict = "generated" if split.is_whole else "in parts"
    return Coverage(graph_name(model), len(ready.graph), verdict, len(split.parts), missing)


if __name__ == "__main__":
    sys.exit(main())
