"""`verify` of a TensorRT package: the weights of the shipped graph, against `sparsity.json` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunec.backends.tensorrt.eligibility import judge
from prunec.backends.tensorrt.lower import prove_planned
from prunec.backends.tensorrt.package import MODEL, PROOF
from prunec.diagnostics import GateError


def verify_folder(folder: Path) -> int:
    """Count, compress, multiply and hash every planned weight again; how many there are. GateError PC525."""
    document = json.loads((folder / PROOF).read_text(encoding="utf-8"))
    model = ir.load(folder / MODEL)
    recorded = recorded_hashes(document)
    proofs = prove_planned(model, judge(model), document["planned"])
    for proof in proofs:
        if proof.sha256 != recorded.get(proof.node):
            message = f"the weight has other bytes than {PROOF} says"
            raise GateError("PC525", message, where=proof.node, hint="compile the model again")
    return len(proofs)


def recorded_hashes(document: Mapping[str, Any]) -> dict[str, str]:
    """Node → sha256 of its weight, of the layers that were proved."""
    return {layer["node"]: layer["proof"]["sha256"] for layer in document["layers"] if "proof" in layer}
