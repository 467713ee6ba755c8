"""Opset 9–12 → 13 with onnx's version converter, so that rules for operators know one form of most of them.

The converter works on the whole protobuf message; large weights are left out of it and put back. A model that it cannot
convert keeps its opset, with a warning (PC020) in `graph.meta[WARNINGS]`.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from prunec.diagnostics import Diagnostic
from prunec.passes.canonicalise.names import UniqueNames

TARGET = 13
WARNINGS = "prunec.warnings"
_KEPT_BYTES = 4096


class RaiseOpset(ir.passes.InPlacePass):
    """The model gets the converted graph, in opset `target` or what it had; metadata stays."""

    def __init__(self, target: int = TARGET) -> None:
        super().__init__()
        self.target = target

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        version = model.opset_imports.get("", self.target)
        if version >= self.target:
            return ir.passes.PassResult(model, modified=False)
        proto, tensors = _without_weights(model)
        try:
            converted = ir.from_proto(onnx.version_converter.convert_version(proto, self.target))
            onnx.checker.check_model(ir.to_proto(converted))
        except Exception as error:  # noqa: BLE001  (the converter throws whatever its adapters throw)
            _warn(model, version, self.target, error)
            return ir.passes.PassResult(model, modified=False)
        _put_back(converted, tensors)
        model.graph = converted.graph
        model.ir_version = max(model.ir_version or 0, converted.ir_version or 0)
        return ir.passes.PassResult(model, modified=True)


def with_opset(model: ir.Model, version: int) -> ir.Model | None:
    """`model` where it has that opset or a later one, else a copy in it with unique names; None where it cannot be."""
    if model.opset_imports.get("", 0) >= version:
        return model
    raised = UniqueNames()(RaiseOpset(version)(model.clone()).model).model
    return raised if raised.opset_imports.get("", 0) >= version else None


def _without_weights(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """A protobuf message in which large initializers are graph inputs, and those initializers."""
    light = model.clone()
    taken: dict[str, ir.TensorProtocol] = {}
    for name, value in list(light.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _KEPT_BYTES:
            taken[name] = tensor
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            del light.graph.initializers[name]
            value.const_value = None
            light.graph.inputs.append(value)
    return ir.to_proto(light), taken


def _put_back(model: ir.Model, tensors: dict[str, ir.TensorProtocol]) -> None:
    values = {value.name: value for value in model.graph.inputs}
    for name, tensor in tensors.items():
        value = values[name]
        model.graph.inputs.remove(value)
        value.const_value = tensor
        model.graph.register_initializer(value)


def _warn(model: ir.Model, version: int, target: int, error: Exception) -> None:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    model.graph.meta.setdefault(WARNINGS, []).append(
        Diagnostic(
            "PC020",
            f"opset {version} could not be raised to {target}: {reason}",
            hint="export with opset 13 or newer if a later step does not know an old operator",
        )
    )
