"""The folder `tensorrt/` of a package: graphs, proof, scripts, test vectors. The same inputs give the same bytes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from prunec.backends.base import Range, Verdict
from prunec.backends.tensorrt.proof import WeightProof
from prunec.backends.tensorrt.scripts.build import OPTIMISATION_LEVEL
from prunec.backends.tensorrt.writing import rows_of, vectors, write_json, write_scripts, write_template
from prunec.package.writer import save_model
from prunec.verify.records import LoweringRecord

FOLDER = "tensorrt"
MODEL, DENSE, PROOF, SHAPES, VECTORS = "model.onnx", "dense.onnx", "sparsity.json", "shapes.json", "vectors.npz"
BUILD_SH = "tensorrt/build.sh.jinja"
SCRIPTS = ("sparse_log", "device", "build", "engine", "benchmark")


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
    lowering: LoweringRecord
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
    rows = rows_of(contents.model, contents.ranges)
    write_json(folder / SHAPES, {name: [list(shape) for shape in shapes] for name, *shapes in rows})
    (folder / VECTORS).write_bytes(vectors(contents.inputs, contents.outputs))
    write_scripts(folder, [f"tensorrt.scripts.{script}" for script in SCRIPTS])
    write_template(folder / "build.sh", BUILD_SH, dynamic=rows, level=OPTIMISATION_LEVEL, spec=spec_of(rows))
    (folder / "build.sh").chmod(0o755)
    write_words(folder, contents)
    return folder


def write_words(folder: Path, contents: Contents) -> None:
    """What says whether the package was executed: the proof and the README."""
    write_json(folder / PROOF, proof_document(contents))
    rows = rows_of(contents.model, contents.ranges)
    write_template(
        folder / "README.md", "tensorrt/README.md.jinja",
        name=contents.name, precision=contents.precision, planned=contents.planned, dynamic=rows, ranges=rows,
        units=sum(proof.units for proof in contents.proofs),
        product_error=max((proof.product_max_rel for proof in contents.proofs), default=0.0),
        lowering=contents.lowering, samples=contents.samples, executed=contents.executed,
    )  # fmt: skip


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
        "tolerance": contents.lowering.tolerance,
        "bounds": contents.lowering.bounds,
        "planned": list(contents.planned),
        "left_dense": [{"name": name, "reason": reason} for name, reason in contents.left_dense.items()],
        "layers": [layer_document(verdict, proofs.get(verdict.node)) for verdict in contents.verdicts],
    }


def layer_document(verdict: Verdict, proof: WeightProof | None) -> dict[str, Any]:
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


def spec_of(rows: Sequence[tuple[Any, ...]]) -> Any:
    """trtexec's spelling of the least (0), usual (1) or largest (2) shapes, quoted for the shell."""

    def spell(index: int) -> str:
        return shlex.quote(",".join(f"{_quoted(row[0])}:{'x'.join(map(str, row[1 + index]))}" for row in rows))

    return spell


def _quoted(name: str) -> str:
    """trtexec splits at colons; a name that has one stands in quotes of its own."""
    return f"'{name}'" if ":" in name else name
