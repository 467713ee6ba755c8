"""The target `torch-tensorrt-2:4`: the same pruning as `tensorrt-2:4`, as modules for Torch-TensorRT and PyTorch."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from prunec.backends.base import Artifact, BuildOptions, Feeds, Subject, Verdict, refuse_tuning
from prunec.backends.onnx.session import make_session, run
from prunec.backends.tensorrt import environment
from prunec.backends.tensorrt.checker import digest
from prunec.backends.tensorrt.eligibility import judge
from prunec.backends.tensorrt.limits import check_ranges
from prunec.backends.tensorrt.lower import fitted, prove_planned
from prunec.backends.tensorrt.package import layer_document
from prunec.backends.tensorrt.proof import WeightProof
from prunec.backends.tensorrt.proving_again import recorded_hashes
from prunec.backends.tensorrt.target import MARK, NOT_EXECUTED, TwoOfFour, split
from prunec.backends.tensorrt.writing import rows_of, vectors, write_json, write_scripts, write_template
from prunec.diagnostics import GateError, PrunecError
from prunec.frontend.torch_extra import require_torch
from prunec.verify.metrics import is_inexact, max_relative
from prunec.verify.records import DenseLayer, LoweringRecord, SemiStructuredRecord, TensorRTRecord

NOT_EXECUTED_HERE = replace(
    NOT_EXECUTED,
    hint="on a machine with an NVIDIA GPU run compile_arms.py in the package's folder torch_tensorrt",
)
FOLDER = "torch_tensorrt"
TOLERANCE = 1e-4
"""The exported program against ONNX Runtime, both in FP32: sums in another order."""
HALF_TOLERANCE = 3e-2
"""What the scripts allow of FP16 on a GPU."""
SCRIPTS = (
    "tensorrt.scripts.sparse_log",
    "torch_tensorrt.scripts.compile_arms",
    "torch_tensorrt.scripts.semi_structured",
)
USAGE = """\
The folder torch_tensorrt/ holds the pruned model as a torch.export program and what compiles and measures it.

    cd torch_tensorrt
    python3 compile_arms.py      # Torch-TensorRT: dense, 2:4, and 2:4 with sparse_weights=True, timed in turn
    python3 semi_structured.py   # plain PyTorch: torch.sparse.to_sparse_semi_structured
"""


class TorchTensorRT(TwoOfFour):
    """See the module."""

    name = "torch-tensorrt-2:4"

    def check(self, options: BuildOptions) -> None:
        require_torch("the target torch-tensorrt-2:4")
        for name in ("precision", "products"):
            if getattr(options, name) is not None:
                message = f"--{name} is about an ONNX graph, and this target writes a torch program"
                raise PrunecError("PC440", message, where=f"--{name}", hint="leave it out, or use tensorrt-2:4")
        refuse_tuning(options, self.name)
        if not options.builds:
            return
        if importlib.util.find_spec("torch_tensorrt") is None:
            hint = f"pip install 'prunec[torch-tensorrt]', {environment.NO_BUILD}"
            raise PrunecError("PC430", "Torch-TensorRT is not installed", where="--target", hint=hint)
        environment.check()

    def check_model(self, model: ir.Model, options: BuildOptions) -> None:
        from prunec.torch.from_ir import refuse_unknown

        check_ranges(model, options.ranges)
        refuse_unknown(model.graph)

    def write(self, folder: Path, subject: Subject, options: BuildOptions) -> Artifact:
        from prunec.backends.torch_tensorrt import module

        verdicts = judge(subject.model)
        planned, left = split(verdicts, subject, {})
        proofs = prove_planned(subject.model, verdicts, planned)
        feeds = fitted(subject.batches[0], options.ranges)
        programs = {
            file: module.export(model, feeds, options.ranges)
            for file, model in (("module.pt2", subject.model), ("dense.pt2", subject.dense))
        }
        own = programs["module.pt2"]
        lost = module.differing(own, subject.model, {proof.node: proof.tensor for proof in proofs})
        if lost:
            message = "a planned weight of the exported program is not that of model.onnx"
            raise GateError("PC525", message, where=", ".join(lost), hint="please report this")
        expected = run(make_session(subject.model, threads=options.threads), feeds)
        lowering = _compare(expected, module.run(own, feeds, subject.model))
        semi = [semi_structured(proof, module.parameter_names(own)) for proof in proofs]
        written = folder / FOLDER
        written.mkdir()
        for file, program in programs.items():
            (written / file).write_bytes(module.to_bytes(program))
        rows = rows_of(subject.model, options.ranges)
        write_json(written / "shapes.json", {name: [list(shape) for shape in shapes] for name, *shapes in rows})
        (written / "vectors.npz").write_bytes(vectors(feeds, expected))
        write_scripts(written, SCRIPTS)
        record = TensorRTRecord(
            planned_sparse=tuple(planned),
            eligible=tuple(verdict.node for verdict in verdicts if verdict.eligible),
            left_dense=tuple(DenseLayer(name=name, reason=reason) for name, reason in left.items()),
            executed=False,
            precision="fp32 program, compiled to fp16",
            fp32_islands={},
            weights_proved=len(proofs),
            product_max_rel=max((proof.product_max_rel for proof in proofs), default=0.0),
            semi_structured=tuple(semi),
        )
        document = _document(record, proofs, verdicts)
        _words(written, subject.name, document, lowering, executed=False)
        if not options.builds:
            return Artifact(MARK + USAGE, lowering, record, warnings=(NOT_EXECUTED_HERE,))
        from prunec.backends.torch_tensorrt.executed import execute

        done = execute(written, HALF_TOLERANCE)
        _words(written, subject.name, document, lowering, executed=True)
        told = record.model_copy(update={"executed": True, "kernels": done.kernels})
        return Artifact(USAGE, lowering, told, contenders=done.contenders, feeds=feeds, scratch=done.scratch)

    def verify(self, package: Path) -> int:
        import torch

        document = json.loads((package / FOLDER / "sparsity.json").read_text(encoding="utf-8"))
        recorded = recorded_hashes(document)
        state = torch.export.load(package / FOLDER / "module.pt2").state_dict
        present = {digest(tensor.detach().numpy()) for tensor in state.values()}
        lost = [node for node in document["planned"] if recorded.get(node) not in present]
        if lost:
            message = "the exported program does not have the weights that were proved"
            raise GateError("PC525", message, where=", ".join(lost), hint="compile the model again")
        return len(document["planned"])


def semi_structured(proof: WeightProof, parameters: Mapping[str, str]) -> SemiStructuredRecord:
    """The shape rules of PyTorch's sparse matrices, in FP16."""
    from prunec.backends.torch_tensorrt.scripts.semi_structured import RULES, refusal

    if proof.op == "Conv" or len(proof.shape) != 2:
        what = "convolution" if proof.op == "Conv" else "stack of matrices"
        return SemiStructuredRecord(name=proof.node, why_not=f"PyTorch has sparse matrices only, this is a {what}")
    is_turned = proof.axis == 0
    outputs, inputs = proof.shape[::-1] if is_turned else proof.shape
    refusals = {library: refusal(outputs, inputs, library=library) for library in RULES}
    libraries = tuple(library for library, why in refusals.items() if why is None)
    why_not = None if libraries else "; ".join(why for why in refusals.values() if why)
    return SemiStructuredRecord(
        name=proof.node, parameter=parameters[proof.tensor], turned=is_turned, libraries=libraries, why_not=why_not
    )


def _compare(expected: Feeds, found: Feeds) -> LoweringRecord:
    error = max((max_relative(a, found[name]) for name, a in expected.items() if is_inexact(a)), default=0.0)
    if not error <= TOLERANCE:
        message = f"the exported program differs from model.onnx by {error:.1e}, more than {TOLERANCE:.0e}"
        raise GateError("PC524", message, hint="please report this: an operator is translated wrongly")
    return LoweringRecord(max_rel=error, tolerance=TOLERANCE, passed=True)


def _document(record: TensorRTRecord, proofs: Sequence[WeightProof], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """`sparsity.json`, but for whether it was executed."""
    known = {proof.node: proof for proof in proofs}
    return {
        "schema_version": 1,
        "model": "module.pt2",
        "pattern": "2:4",
        "tolerance": HALF_TOLERANCE,
        "planned": list(record.planned_sparse),
        "left_dense": [layer.to_json() for layer in record.left_dense],
        "layers": [layer_document(verdict, known.get(verdict.node)) for verdict in verdicts],
        "semi_structured": [semi.to_json() for semi in record.semi_structured or ()],
    }


def _words(folder: Path, name: str, document: dict[str, Any], lowering: LoweringRecord, *, executed: bool) -> None:
    """What says whether the package was executed: the proof and the README."""
    note = "compiled and run" if executed else "not executed here: kernels and speed were not looked at"
    write_json(folder / "sparsity.json", {**document, "executed": executed, "note": note})
    write_template(
        folder / "README.md",
        "torch_tensorrt/README.md.jinja",
        name=name,
        executed=executed,
        planned=document["planned"],
        units=sum(layer["proof"]["runs_of_four"] for layer in document["layers"] if "proof" in layer),
        max_rel=lowering.max_rel,
        fitting=sum("why_not" not in semi for semi in document["semi_structured"]),
    )
