"""Did TensorRT pick sparse kernels? Reads a verbose build log and, if there is one, the engine inspector's JSON.

    python sparse_log.py BUILD.log [LAYERS.json] [--planned sparsity.json]

TensorRT lists layers whose weights are 2:4 ("eligible") and those it runs on sparse kernels ("chosen"), in one of two
wordings. It times dense and sparse kernels and keeps the faster ones: eligible and not chosen means that dense was
faster on this GPU at these shapes. Exit code 0 if some layer was chosen, 1 if none was ("TensorRT kept dense"), 2 if
the log says nothing about sparsity.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ELIGIBLE = (
    re.compile(r"\(Sparsity\)\s*Layers eligible for sparse math:?(?P<names>.*)", re.IGNORECASE),
    re.compile(
        r"\(Sparsity\)\s*Found (?P<count>\d+) layer\(?s?\)? eligible to use sparse tactics:?(?P<names>.*)", re.I
    ),
)
CHOSEN = (
    re.compile(r"\(Sparsity\)\s*TRT inference plan picked sparse implementation for layers:?(?P<names>.*)", re.I),
    re.compile(r"\(Sparsity\)\s*Chose (?P<count>\d+) layer\(?s?\)? using sparse tactics:?(?P<names>.*)", re.I),
)
TACTIC = re.compile(r"sparse_?(gemm|conv|fprop|tensorop)|spgemm|sptensorop|_sparse_|\bsparse", re.IGNORECASE)
ONNX_NAME = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class Said:
    """One of the two lines of a log. `names` is empty where the wording gives a number only."""

    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Kernel:
    """One layer of the engine: the nodes that were fused into it, its tactic, and whether that is a sparse one.

    `tactic` is empty and `is_sparse` None where the engine was built without detailed profiling.
    """

    layer: str
    nodes: tuple[str, ...]
    tactic: str
    is_sparse: bool | None


@dataclass(frozen=True)
class Outcome:
    """What became of the planned nodes: on sparse kernels, kept dense, or not said."""

    eligible: int | None
    chosen: int | None
    sparse: tuple[str, ...]
    kept_dense: tuple[str, ...]
    unknown: tuple[str, ...]
    tactics: dict[str, str]

    @property
    def has_sparse_kernels(self) -> bool:
        return bool(self.chosen) or bool(self.sparse)


def read_log(text: str) -> tuple[Said | None, Said | None]:
    """(eligible, chosen) as the log's last lines say; they are written once per pass, the last one is the engine's."""
    return _last(text, ELIGIBLE), _last(text, CHOSEN)


def read_layers(text: str) -> list[Kernel]:
    """The engine inspector's JSON. ValueError if it is something else."""
    document = json.loads(text)
    layers = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(layers, list):
        raise ValueError("no engine inspector output: there is no list of layers")
    return [_kernel(layer) for layer in layers]


def outcome(
    planned: Sequence[str], eligible: Said | None, chosen: Said | None, kernels: Iterable[Kernel] = ()
) -> Outcome:
    """Names in the log and in the inspector decide per node; where there are none, nodes are unknown."""
    sparse, dense, unknown, tactics = [], [], [], {}
    own = list(kernels)
    for node in planned:
        found = [kernel for kernel in own if node in kernel.nodes]
        told = next((kernel.tactic for kernel in found if kernel.tactic), "")
        if told:
            tactics[node] = told
        if (chosen is not None and _is_in(node, chosen.names)) or any(kernel.is_sparse for kernel in found):
            sparse.append(node)
        elif (chosen is not None and (chosen.names or chosen.count == 0)) or any(k.is_sparse is False for k in found):
            dense.append(node)
        else:
            unknown.append(node)
    return Outcome(
        eligible=None if eligible is None else eligible.count,
        chosen=None if chosen is None else chosen.count,
        sparse=tuple(sparse),
        kept_dense=tuple(dense),
        unknown=tuple(unknown),
        tactics=tactics,
    )


def sentence(found: Outcome) -> str:
    """The result in words."""
    if found.eligible is None and found.chosen is None and not found.tactics:
        return "The log says nothing about sparsity: build with --verbose and the sparsity flag."
    chosen = found.chosen if found.chosen is not None else len(found.sparse)
    planned = len(found.sparse) + len(found.kept_dense) + len(found.unknown)
    numbers = f"{chosen} of " + (f"{planned} planned" if found.eligible is None else f"{found.eligible} eligible")
    numbers += " layers"
    if found.has_sparse_kernels:
        return f"TensorRT runs {numbers} on sparse kernels."
    return f"TensorRT kept dense: {numbers} run on sparse kernels; its dense ones were faster here."


def _last(text: str, patterns: Sequence[re.Pattern[str]]) -> Said | None:
    found = None
    for line in text.splitlines():
        for pattern in patterns:
            match = pattern.search(line)
            if match:
                names = tuple(name.strip() for name in match["names"].split(",") if name.strip())
                given = match.groupdict().get("count")
                found = Said(len(names) if given is None else int(given), names)
    return found


def _kernel(layer: Any) -> Kernel:
    if not isinstance(layer, dict):
        return Kernel(str(layer), nodes_of(str(layer), ""), "", None)
    name, tactic = str(layer.get("Name", "")), str(layer.get("TacticName") or "")
    nodes = nodes_of(name, str(layer.get("Metadata") or ""))
    return Kernel(name, nodes, tactic, bool(TACTIC.search(tactic)) if tactic else None)


def nodes_of(name: str, metadata: str) -> tuple[str, ...]:
    """ONNX nodes of a fused layer: from its metadata, else from a name such as `conv1 + relu1`."""
    found = ONNX_NAME.findall(metadata)
    return tuple(dict.fromkeys(found or (part.strip() for part in name.split(" + "))))


def _is_in(node: str, names: Sequence[str]) -> bool:
    return any(node in nodes_of(name, "") for name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Which layers of a TensorRT engine run on sparse kernels.")
    parser.add_argument("log", type=Path)
    parser.add_argument("layers", type=Path, nargs="?", help="engine inspector JSON (trtexec --exportLayerInfo)")
    parser.add_argument("--planned", type=Path, default=Path(__file__).with_name("sparsity.json"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    planned = json.loads(given.planned.read_text())["planned"] if given.planned.exists() else []
    eligible, chosen = read_log(given.log.read_text(errors="replace"))
    kernels = read_layers(given.layers.read_text()) if given.layers else []
    found = outcome(planned, eligible, chosen, kernels)
    if given.json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    else:
        lines = [sentence(found), *(f"  sparse  {n}  {found.tactics.get(n, '')}".rstrip() for n in found.sparse)]
        lines += [f"  dense   {n}  {found.tactics.get(n, '')}".rstrip() for n in found.kept_dense]
        lines += [f"  unknown {n}" for n in found.unknown]
        sys.stdout.write("\n".join(lines) + "\n")
    if found.has_sparse_kernels:
        return 0
    return 2 if found.eligible is None and found.chosen is None and not found.tactics else 1


if __name__ == "__main__":
    sys.exit(main())
