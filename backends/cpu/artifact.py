"""Write what runs: `cpu/` with one folder per part and `parts.json`, which says what goes from where to where."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import write_object
from prunec.backends.cpu.layout import EXAMPLE, FOLDER, HEADER, LIBRARY, PART_MODEL, PARTS, WEIGHTS
from prunec.backends.cpu.link import link
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.parts import Part, Split, onnx_part
from prunec.backends.cpu.source import kernel_sizes, program_source, weights_of
from prunec.package.jsonfile import dumps
from prunec.package.manifest import describe_values

_RUNTIME = Path(__file__).parent / "runtime"


def write_folder(split: Split, model: ir.Model, isa: Isa, package: Path) -> Path:
    """Write `package`/cpu and return it. A model in one part lies in that folder itself, else its parts in part0, ….

    Raises:
        PrunecError PC453: no C compiler, or it fails.
    """
    folder = package / FOLDER
    folder.mkdir()
    documents = []
    for number, part in enumerate(split.parts):
        name = "." if split.is_whole else f"part{number}"
        own = folder / name
        own.mkdir(exist_ok=True)
        if part.program is None:
            (own / PART_MODEL).write_bytes(onnx_part(model, part).SerializeToString(deterministic=True))
        else:
            write_artifact(part.program, isa, own)
        documents.append(_document(part, name))
    document = {
        "schema_version": 1,
        "isa": isa.name,
        "flags": list(isa.flags),
        "inputs": [record.model_dump(mode="json") for record in describe_values(list(model.graph.inputs))],
        "outputs": [record.model_dump(mode="json") for record in describe_values(list(model.graph.outputs))],
        "parts": documents,
        "in_onnxruntime": [{"node": r.node.name, "op": r.node.op_type, "why": r.reason} for r in split.refusals],
    }
    (folder / PARTS).write_bytes(dumps(document).encode())
    return folder


def write_artifact(program: Program, isa: Isa, folder: Path) -> None:
    """Compile one program into `folder`: library, weights, header, example.

    Raises:
        PrunecError PC453: no C compiler, or it fails.
    """
    kernel_sizes(program)
    weights = weights_of(program)
    with tempfile.TemporaryDirectory(prefix="prunec-cpu-") as name:
        work = Path(name)
        kernels = program.kernels()
        objects = [Path("kernels.o")] if kernels else []
        if kernels:
            write_object(kernels, isa, work / "kernels.o")
        link(objects, program_source(program, weights, isa), folder / LIBRARY, work)
    weights.write(folder / WEIGHTS)
    for source in (HEADER, EXAMPLE):
        shutil.copyfile(_RUNTIME / source, folder / source)


def _document(part: Part, name: str) -> dict[str, Any]:
    return {
        "kind": "onnxruntime" if part.program is None else "generated",
        "folder": name,
        "inputs": [value.name for value in part.inputs],
        "outputs": [value.name for value in part.outputs],
    }
