"""Write ONNX graphs by hand from named weights: readable names, the same bytes every time.

A node is named after the module it comes from, its output is `<name>.out`, and weights keep the names of the
checkpoint, so that a reader finds `layers.3.conv.weight` again in the pruning report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = npt.NDArray[Any]
OPSET = 17
IR_VERSION = 8


class GraphBuilder:
    """Collects nodes in order; `weights` is the checkpoint that `weight` and the layer methods take from."""

    def __init__(self, name: str, weights: Mapping[str, Array]) -> None:
        self.name = name
        self.weights = weights
        self._nodes: list[NodeProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> str:
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> None:
        self._outputs.append(_value_info(name, dtype, shape))

    def constant(self, name: str, array: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        """An initializer that is not in the checkpoint: shapes, axes, scalars. Adding it again returns the first."""
        if name not in self._initializers:
            values = np.ascontiguousarray(np.asarray(array, dtype=dtype)).reshape(np.shape(array))
            self._initializers[name] = numpy_helper.from_array(values, name)
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name], self.weights[name].dtype)

    def node(self, op: str, inputs: Sequence[str], name: str, *, output: str | None = None, **attributes: Any) -> str:
        """Append a node of one output and return that output's name."""
        output = output or f"{name}.out"
        self._nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def relu(self, x: str, name: str) -> str:
        return self.node("Relu", [x], name)

    def conv(self, x: str, name: str, *, strides: Sequence[int], pads: Sequence[int], group: int = 1) -> str:
        """Conv with `<name>.weight` and, where the checkpoint has it, `<name>.bias`."""
        kernel = list(self.weights[f"{name}.weight"].shape[2:])
        bias = [self.weight(f"{name}.bias")] if f"{name}.bias" in self.weights else []
        return self.node(
            "Conv",
            [x, self.weight(f"{name}.weight"), *bias],
            name,
            kernel_shape=kernel,
            strides=list(strides),
            pads=list(pads),
            group=group,
        )

    def batch_norm(self, x: str, name: str, *, epsilon: float) -> str:
        parts = [self.weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [x, *parts], name, epsilon=epsilon)

    def linear(self, x: str, name: str) -> str:
        """x Wᵀ + b for any rank: MatMul with the weight stored as [in, out], then Add."""
        transposed = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T, np.float32)
        return self.node(
            "Add", [self.node("MatMul", [x, transposed], name), self.weight(f"{name}.bias")], f"{name}.add"
        )

    def model(self) -> ModelProto:
        """The checked model, with inferred shapes on every value."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._initializers.values())
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="prunec")
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def save_model(model: ModelProto, path: Path) -> None:
    """Deterministic bytes, and no half-written file under the final name."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(model.SerializeToString(deterministic=True))
    partial.replace(path)


def _value_info(name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
