"""Which operators and opsets the model uses: known, custom, or for training only."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from prunec.diagnostics import Diagnostic, PrunecError
from prunec.graph.rules import RULES

MIN_OPSET = 9
_STANDARD = {"", "ai.onnx"}
RUNTIME_STANDARD = frozenset({"SimplifiedLayerNormalization"})
"""Operators that ONNX Runtime registers in the standard domain although ONNX has no such operator."""
_TRAINING_DOMAINS = {"ai.onnx.training", "ai.onnx.preview.training"}


def check(model: ir.Model) -> list[Diagnostic]:
    """PC010, PC011, PC015; one warning PC019 per custom operator."""
    _check_opsets(model)
    functions = {(identifier[0], identifier[1]) for identifier in model.functions}
    custom: dict[tuple[str, str], str] = {}
    containers: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for container in containers:
        for node in ir.traversal.RecursiveGraphIterator(container):
            where = node.name or f"{node.op_type} → {node.outputs[0].name if node.outputs else ''}"
            _check_training(node, where)
            if (node.domain, node.op_type) in functions:
                continue
            if node.domain in _STANDARD:
                _check_standard(node, where, container.opset_imports)
            elif not _has_schema(node, container.opset_imports) and f"{node.domain}::{node.op_type}" not in RULES:
                custom.setdefault((node.domain, node.op_type), where)
    return [
        Diagnostic(
            "PC019",
            f'operator "{name}" of domain "{domain}" is custom: everything it touches stays as it is',
            where,
            "the model runs only where this operator is registered",
        )
        for (domain, name), where in sorted(custom.items())
    ]


def _check_opsets(model: ir.Model) -> None:
    newest = onnx.defs.onnx_opset_version()
    versions = [version for domain, version in model.opset_imports.items() if domain in _STANDARD]
    for version in versions:
        if not MIN_OPSET <= version <= newest:
            raise PrunecError(
                "PC010",
                f"opset {version} is not supported (supported: {MIN_OPSET} to {newest})",
                where="ai.onnx",
                hint=f"export with opset {min(newest, 20)}, or use onnx.version_converter",
            )
    known = {"ai.onnx.ml": onnx.defs.C.schema_version_map().get("ai.onnx.ml", (1, 1))[1]}
    for domain, version in model.opset_imports.items():
        if domain in known and not 1 <= version <= known[domain]:
            raise PrunecError(
                "PC010",
                f"opset {version} is not supported (supported: 1 to {known[domain]})",
                where=domain,
                hint="export the model with a lower opset",
            )


def _check_standard(node: ir.Node, where: str, opsets: dict[str, int]) -> None:
    version = opsets.get("", opsets.get("ai.onnx"))
    if version is None:
        raise PrunecError(
            "PC010",
            f'operator "{node.op_type}" is used but its opset is not imported',
            where=where,
            hint="export the model again",
        )
    if not onnx.defs.has(node.op_type, version, "") and node.op_type not in RUNTIME_STANDARD:
        raise PrunecError(
            "PC011",
            f'unknown operator "{node.op_type}" in opset {version}',
            where=where,
            hint="export with an opset that has it, or give a custom operator its own domain",
        )


def _has_schema(node: ir.Node, opsets: dict[str, int]) -> bool:
    return onnx.defs.has(node.op_type, opsets.get(node.domain, 1), node.domain)


def _check_training(node: ir.Node, where: str) -> None:
    hint = "export the model in inference mode (model.eval(), TrainingMode.EVAL)"
    if node.domain in _TRAINING_DOMAINS:
        raise PrunecError("PC015", f'training-only operator "{node.op_type}"', where=where, hint=hint)
    if node.domain not in _STANDARD:
        return
    if node.op_type == "BatchNormalization":
        mode = node.attributes.get("training_mode")
        if mode is not None and not mode.is_ref() and mode.as_int() != 0:
            raise PrunecError("PC015", "BatchNormalization in training mode", where=where, hint=hint)
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        mode_tensor = ir.convenience.get_const_tensor(node.inputs[2])
        if mode_tensor is not None and bool(mode_tensor.numpy().any()):
            raise PrunecError("PC015", "Dropout in training mode", where=where, hint=hint)
