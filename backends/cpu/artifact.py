"""Write what runs: `cpu/` with one folder per part and `parts.json`, which says what goes from where to where."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import write_object
from prunec.backends.cpu.layout import EXAMPLE, FOLDER, HEADER, LIBRARY, PART_MODEL, PARTS, WEIGHTS
from prunec.backends.cpu.link import link
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.parts import Part, Split, onnx_part
from prunec.backends.cpu.source import header_source, kernel_sizes, kernels_of, program_source, weights_of
from prunec.frontend.input_shapes import real_inputs
from prunec.graph.shapes import dims
from prunec.package.jsonfile import dumps
from prunec.package.manifest import describe_values

_RUNTIME = Path(__file__).parent / "runtime"


def write_folder(splits: Sequence[Split], models: Sequence[ir.Model], isa: Isa, package: Path) -> Path:
    """Write `package`/cpu and return it. A model in one part lies in that folder itself, else its parts in part0, ….

    One split and model for every shape of the inputs; if there are several, each is whole.

    Raises:
        PrunecError PC453: no C compiler, or it fails.
    """
    folder = package / FOLDER
    folder.mkdir()
    first, model = splits[0], models[0]
    documents = []
    for number, part in enumerate(first.parts):
        name = "." if first.is_whole else f"part{number}"
        own = folder / name
        own.mkdir(exist_ok=True)
        programs = [program for split in splits if (program := split.parts[number].program) is not None]
        if programs:
            write_artifact(programs, isa, own)
        else:
            (own / PART_MODEL).write_bytes(onnx_part(model, part).SerializeToString(deterministic=True))
        documents.append(_document(part, name))
    document = {
        "schema_version": 1,
        "isa": isa.name,
        "flags": list(isa.flags),
        "inputs": [record.model_dump(mode="json") for record in describe_values(list(model.graph.inputs))],
        "outputs": [record.model_dump(mode="json") for record in describe_values(list(model.graph.outputs))],
        "shapes": [
            {value.name: [int(n) for n in dims(value) or () if isinstance(n, int)] for value in real_inputs(each)}
            for each in models
        ],
        "parts": documents,
        "in_onnxruntime": [{"node": r.node.name, "op": r.node.op_type, "why": r.reason} for r in first.refusals],
    }
    (folder / PARTS).write_bytes(dumps(document).encode())
    return folder


def write_artifact(programs: Sequence[Program], isa: Isa, folder: Path) -> None:
    """Compile the programs of one model into `folder`, one for every shape: library, weights, header, example.

    Raises:
        PrunecError PC453: no C compiler, or it fails.
    """
    for program in programs:
        kernel_sizes(program)
    weights = weights_of(programs)
    with tempfile.TemporaryDirectory(prefix="prunec-cpu-") as name:
        work = Path(name)
        kernels = kernels_of(programs)
        objects = [Path("kernels.o")] if kernels else []
        if kernels:
            write_object(kernels, isa, work / "kernels.o")
        link(objects, program_source(programs, weights, isa), folder / LIBRARY, work)
    weights.write(folder / WEIGHTS)
    shutil.copyfile(_RUNTIME / EXAMPLE, folder / EXAMPLE)
    header = (_RUNTIME / HEADER).read_text(encoding="utf-8")
    (folder / HEADER).write_text(header_source(header, programs), encoding="utf-8")


def _document(part: Part, name: str) -> dict[str, Any]:
    return {
        "kind": "onnxruntime" if part.program is None else "generated",
        "folder": name,
        "inputs": [value.name for value in part.inputs],
        "outputs": [value.name for value in part.outputs],
    }
