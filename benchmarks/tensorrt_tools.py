"""What NVIDIA's own tools say of a package without a GPU: TensorRT-RTX, and Polygraphy's check of the pattern."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from prunec.backends.tensorrt.smoke import smoke
from prunec.verify.records import SmokeRecord


def rtx(folder: Path, python: str | None, recorded: SmokeRecord | None) -> str | None:
    """Did TensorRT-RTX parse and build it for SM80 and SM89? `python`: an interpreter that has it."""
    said = smoke(folder, python) if python else recorded
    return None if said is None else "yes" if said.passed else "no: " + "; ".join(said.errors)[:150]


def polygraphy(command: str, folder: Path) -> str:
    """How many of the planned weights `polygraphy inspect sparsity` calls 2:4, and what it does with the others.

    Its exit code says nothing, its text does.
    """
    document = json.loads((folder / "sparsity.json").read_text(encoding="utf-8"))
    tensors = {layer["node"]: layer["tensor"] for layer in document["layers"]}
    done = subprocess.run(
        [command, "inspect", "sparsity", "-v", str(folder / "model.onnx")], capture_output=True, text=True, check=False
    )
    names = [tensors[node] for node in document["planned"]]
    text = done.stdout + done.stderr
    model = ir.load(folder / "model.onnx")
    found = Counter(verdict(text, name, model.graph.initializers[name]) for name in names)
    agreed = found.pop("sparse", 0)
    others = "".join(f"; {count} {what}" for what, count in found.most_common())
    ending = f"; it ended with: {text.strip().splitlines()[-1][:100]}" if done.returncode else ""
    return f"{agreed} of {len(names)}{others}{ending}"


def verdict(text: str, name: str, value: ir.Value) -> str:
    """What Polygraphy's log says of one weight."""
    spelt = re.escape(name)
    for pattern, what in SAID.items():
        if re.search(pattern.format(name=spelt), text):
            return what
    return f"not looked at ({value.dtype.name if value.dtype else '?'}, rank {len(value.shape or ())})"


SAID: Mapping[str, str] = {
    r"Found sparse tensor: {name}(?:\s|$)": "sparse",
    r"Found non-sparse tensor: {name}(?:\s|$)": "called dense",
    r"Skipping tensor: {name} due to unsupported type": "skipped for their type",
    r"Skipping {name} since the length of axis": "skipped for an axis that is not the reduced one",
}
