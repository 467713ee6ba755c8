"""A model in FP16 by casts, as strongly typed TensorRT networks need it: operators compute in the types they are given.

1. Weights become FP16 once (round to nearest, −0 to +0), inputs and outputs stay FP32.
2. Islands stay FP32: statistics and exponentials (`ISLANDS`), operators with branches, constants that FP16 cannot hold,
   and nodes that the caller names because their values came too near FP16's largest (see `ranges`).
3. A Cast is inserted where a value crosses, once for each value and type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from prunec.diagnostics import PrunecError
from prunec.graph.shapes import is_constant

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
LARGEST = float(np.finfo(np.float16).max)
ISLANDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization",
         "MeanVarianceNormalization", "LRN"), "norm"),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Softplus"), "exponential"),
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
         "ReduceProd", "CumSum", "GlobalAveragePool", "GlobalLpPool"), "reduction"),
    **dict.fromkeys(("If", "Loop", "Scan"), "control flow"),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "recurrence"),
    **dict.fromkeys(
        ("Range", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomNormalLike", "RandomUniform",
         "RandomUniformLike", "Cast", "CastLike", "NonMaxSuppression", "RoiAlign", "STFT"), "its type is fixed"),
}  # fmt: skip
FIXED_INPUTS: Mapping[str, frozenset[int]] = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}
"""Inputs that are FP32 whatever the operator computes in."""
HALF_SCALES = 19
"""The opset in which QuantizeLinear and DequantizeLinear take FP16 scales."""


@dataclass(frozen=True)
class Half:
    """The FP16 model and, by node name, why nodes stayed FP32."""

    model: ir.Model
    islands: Mapping[str, str]


def to_half(model: ir.Model, keep: Mapping[str, str] | None = None) -> Half:
    """`model` in FP16; it stays as it is. `keep`: node name → why it has to stay FP32.

    Raises:
        PrunecError PC446: the type of a value cannot be inferred, so nobody knows where casts have to go.
    """
    result = ShapeInferencePass()(model.clone()).model
    unknown = [
        value.name or "" for node in result.graph for value in node.outputs if value.dtype is None and value.name
    ]
    if unknown:
        message = f"the types of {len(unknown)} values cannot be inferred, such as {unknown[0]}"
        raise PrunecError("PC446", message, where=unknown[0], hint="export the model with standard operators")
    islands = {**_islands(result), **(keep or {})}
    _Caster(result, islands).run()
    RemoveUnusedNodesPass()(result)
    return Half(result, {node.name or "": islands[node.name or ""] for node in result.graph if node.name in islands})


def half_array(array: np.ndarray) -> np.ndarray:
    """float16 [same shape], with zeros as +0."""
    with np.errstate(over="ignore"):
        found: np.ndarray = array.astype(np.float16) + np.float16(0)
    return found


def _islands(model: ir.Model) -> dict[str, str]:
    captured = _captured(model)
    old = model.opset_imports.get("", 0) < HALF_SCALES
    found: dict[str, str] = {}
    for node in model.graph:
        reason = ISLANDS.get(node.op_type)
        if any(output in captured for output in node.outputs):
            reason = reason or "read inside a branch"
        if old and (node.op_type in ("QuantizeLinear", "DequantizeLinear") or _is_fed_by(node, "DequantizeLinear")):
            reason = reason or f"quantised, and opset {model.opset_imports.get('', 0)} has FP32 scales only"
        if reason is None and any(_is_too_large(value) for value in node.inputs):
            reason = "a constant is too large for FP16"
        if reason is None and node.op_type == "BatchNormalization" and _is_too_small(node.inputs[4]):
            reason = "a variance is too small for FP16"
        if reason is not None:
            found[node.name or ""] = reason
    return found


def _captured(model: ir.Model) -> set[ir.Value]:
    """Values of the main graph that subgraphs read."""
    own = {value for node in model.graph for value in node.outputs}
    inner = (node for node in ir.traversal.RecursiveGraphIterator(model.graph) if node.graph is not model.graph)
    found = {value for node in inner for value in node.inputs if value is not None and value in own}
    subgraphs = (graph for graph in model.graphs() if graph is not model.graph)
    return found | {value for graph in subgraphs for value in graph.outputs if value in own}


def _is_fed_by(node: ir.Node, op_type: str) -> bool:
    producers = (value.producer() for value in node.inputs if value is not None)
    return any(producer is not None and producer.op_type == op_type for producer in producers)


def _is_too_large(value: ir.Value | None) -> bool:
    if value is None or not is_constant(value) or value.dtype != FLOAT:
        return False
    assert value.const_value is not None
    array = value.const_value.numpy()
    finite = array[np.isfinite(array)]
    return bool(finite.size and np.abs(finite).max() > LARGEST)


def _is_too_small(value: ir.Value | None) -> bool:
    if value is None or not is_constant(value):
        return True
    assert value.const_value is not None
    array = np.abs(value.const_value.numpy())
    return bool(array.size and array.min() < float(np.finfo(np.float16).tiny))


class _Caster:
    """Walks the main graph once, in order; `now` is the type that each float value has by now."""

    def __init__(self, model: ir.Model, islands: Mapping[str, str]) -> None:
        self.graph, self.islands = model.graph, islands
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.names = {value.name for value in _all_values(model)}

    def run(self) -> None:
        outputs = list(self.graph.outputs)
        for node in list(self.graph):
            wanted = FLOAT if node.name in self.islands else HALF
            fixed = FIXED_INPUTS.get(node.op_type, frozenset())
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype in (FLOAT, HALF):
                    node.replace_input_with(index, self._as(value, FLOAT if index in fixed else wanted))
            for output in node.outputs:
                if output.dtype == FLOAT:
                    output.type = ir.TensorType(wanted)  # the old type object is shared with the original
        for value in dict.fromkeys(outputs):
            if value.dtype == HALF and not is_constant(value):
                self._restore(value)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self.casts:
            made = self._constant(value) if is_constant(value) else self._cast(value, dtype)
            self.casts[value, dtype] = made
        return self.casts[value, dtype]

    def _constant(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        array = half_array(value.const_value.numpy())
        name = self._fresh(f"{value.name}.fp16")
        tensor = ir.Tensor(array, name=name)
        made = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(HALF), const_value=tensor)
        self.graph.register_initializer(made)
        return made

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        node = ir.node(
            "Cast", [value], attributes={"to": int(dtype)}, name=self._fresh(f"{value.name}.to_{dtype.name}")
        )
        made = node.outputs[0]
        made.name, made.shape, made.type = self._fresh(f"{value.name}.{dtype.name}"), value.shape, ir.TensorType(dtype)
        producer = value.producer()
        if producer is None:
            first = next(iter(self.graph))
            self.graph.insert_before(first, node)
        else:
            self.graph.insert_after(producer, node)
        return made

    def _restore(self, value: ir.Value) -> None:
        """The graph output `value` is FP32 again, under its name; what reads it inside reads the FP16 one."""
        name = value.name
        value.name = self._fresh(f"{name}.FLOAT16")
        made = self._cast(value, FLOAT)
        made.name = name
        self.graph.outputs[:] = [made if output is value else output for output in self.graph.outputs]

    def _fresh(self, name: str) -> str:
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        return unique


def _all_values(model: ir.Model) -> Iterable[ir.Value]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
        for node in graph:
            yield from node.outputs
