"""The folder `tensorrt/` of a package: graphs, proof, scripts, test vectors. The same inputs give the same bytes."""

from __future__ import annotations

import io
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnx_ir as ir

from prunec.backends.base import Range, Verdict
from prunec.backends.tensorrt.limits import is_dynamic
from prunec.backends.tensorrt.proof import WeightProof
from prunec.backends.tensorrt.scripts.build import OPTIMISATION_LEVEL
from prunec.frontend.input_shapes import real_inputs
from prunec.package.jsonfile import dumps
from prunec.package.writer import save_model

FOLDER = "tensorrt"
MODEL, DENSE, PROOF, SHAPES, VECTORS = "model.onnx", "dense.onnx", "sparsity.json", "shapes.json", "vectors.npz"
SCRIPTS = ("sparse_log", "device", "build", "engine", "benchmark")
_HOME = "prunec.backends.tensorrt.scripts."
_HERE = Path(__file__).parent
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every entry of a .npz: a zip file has times, and ours must not."""


@dataclass(frozen=True)
class Contents:
    """All that goes into the folder. `inputs`, `outputs`: one batch of test vectors."""

    name: str
    model: ir.Model
    dense: ir.Model
    verdicts: Sequence[Verdict]
    planned: Sequence[str]
    left_dense: Mapping[str, str]
    proofs: Sequence[WeightProof]
    ranges: Mapping[str, Range]
    precision: str
    max_rel: float
    tolerance: float
    samples: int
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    executed: bool = False


def write_folder(package: Path, contents: Contents) -> Path:
    """Write `package`/tensorrt and return it."""
    folder = package / FOLDER
    folder.mkdir()
    save_model(contents.model, folder / MODEL)
    save_model(contents.dense, folder / DENSE)
    ranges = {name: contents.ranges[name] for name in dynamic_inputs(contents.model)}
    _write(folder / SHAPES, dumps({name: [list(shape) for shape in shapes] for name, shapes in ranges.items()}))
    (folder / VECTORS).write_bytes(vectors(contents.inputs, contents.outputs))
    for script in SCRIPTS:
        _write(
            folder / f"{script}.py", (_HERE / "scripts" / f"{script}.py").read_text(encoding="utf-8").replace(_HOME, "")
        )
    rows = [(name, *shapes) for name, shapes in ranges.items()]
    _write(folder / "build.sh", _render("build.sh.jinja", dynamic=rows, level=OPTIMISATION_LEVEL, spec=_spec(rows)))
    (folder / "build.sh").chmod(0o755)
    write_words(folder, contents)
    return folder


def write_words(folder: Path, contents: Contents) -> None:
    """What says whether the package was executed: the proof and the README."""
    rows = [(name, *contents.ranges[name]) for name in dynamic_inputs(contents.model)]
    _write(folder / PROOF, dumps(proof_document(contents)))
    _write(
        folder / "README.md",
        _render(
            "README.md.jinja",
            name=contents.name, precision=contents.precision, planned=contents.planned, dynamic=rows, ranges=rows,
            units=sum(proof.units for proof in contents.proofs),
            product_error=max((proof.product_max_rel for proof in contents.proofs), default=0.0),
            max_rel=contents.max_rel, tolerance=contents.tolerance, samples=contents.samples,
            executed=contents.executed,
        ),
    )  # fmt: skip


def dynamic_inputs(model: ir.Model) -> list[str]:
    return [value.name or "" for value in real_inputs(model) if is_dynamic(value)]


def proof_document(contents: Contents) -> dict[str, Any]:
    """`sparsity.json`. Every layer with weights is there; those that are planned with the proof of their bytes."""
    proofs = {proof.node: proof for proof in contents.proofs}
    note = "engines were built and run; verification.json has what TensorRT chose"
    if not contents.executed:
        note = "not executed here: patterns and numbers were checked without a GPU, kernels and speed were not"
    return {
        "schema_version": 1,
        "executed": contents.executed,
        "note": note,
        "model": MODEL,
        "precision": contents.precision,
        "pattern": "2:4",
        "tolerance": contents.tolerance,
        "planned": list(contents.planned),
        "left_dense": [{"name": name, "reason": reason} for name, reason in contents.left_dense.items()],
        "layers": [_layer(verdict, proofs.get(verdict.node)) for verdict in contents.verdicts],
    }


def _layer(verdict: Verdict, proof: WeightProof | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "node": verdict.node, "op": verdict.op, "tensor": verdict.tensor, "eligible": verdict.eligible,
        "worthwhile": verdict.worthwhile,
    }  # fmt: skip
    document |= {"axis": verdict.axis} if verdict.axis is not None else {}
    document |= {"why_not": verdict.reason, "change": verdict.change} if verdict.reason else {}
    if proof is not None:
        document["proof"] = {
            "shape": list(proof.shape), "dtype": proof.dtype, "runs_of_four": proof.units, "valid": proof.valid,
            "zeros": round(proof.zeros, 9), "sha256": proof.sha256, "compressed_bytes": proof.compressed_bytes,
            "round_trip": proof.round_trip, "product_max_rel": float(f"{proof.product_max_rel:.3g}"),
        }  # fmt: skip
    return document


def vectors(inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> bytes:
    """A .npz of `in:NAME` and `out:NAME` without times."""
    found = {**{f"in:{n}": a for n, a in inputs.items()}, **{f"out:{n}": a for n, a in outputs.items()}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in found.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _FIRST_TIME), member.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _spec(rows: Sequence[tuple[Any, ...]]) -> Any:
    """trtexec's spelling of the least (0), usual (1) or largest (2) shapes, quoted for the shell."""

    def spell(index: int) -> str:
        return shlex.quote(",".join(f"{row[0]}:{'x'.join(map(str, row[1 + index]))}" for row in rows))

    return spell


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    source = (_HERE / template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))
