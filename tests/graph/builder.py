"""A small builder of ONNX models for graph tests: seeded weights, shapes known at build time.

b = Builder(seed=0)
x = b.input("x", [1, 3, 8, 8])
b.output(b.conv(b.relu(b.conv(x, 16)), 8))
model = b.model()
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

CONTRIB = "com.microsoft"


class Builder:
    def __init__(self, seed: int = 0, opset: int = 18) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []
        self.shapes: dict[str, list[int]] = {}
        self.types: dict[str, int] = {}
        self._number = 0

    # -- plumbing -----------------------------------------------------------------------------------------------
    def name(self, base: str) -> str:
        self._number += 1
        return f"{base}{self._number}"

    def input(self, name: str, shape: list[int], dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        self.shapes[name] = shape
        return name

    def output(self, *names: str, dtype: int = TensorProto.FLOAT) -> None:
        self.outputs.extend(names)
        self.types.update(dict.fromkeys(names, dtype))

    def const(self, array: np.ndarray, name: str | None = None) -> str:
        name = name or self.name("const")
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        self.shapes[name] = list(np.asarray(array).shape)
        return name

    def weight(self, *shape: int, name: str | None = None) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        return self.const((self.rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32), name)

    def op(self, op_type: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> Any:
        name = self.name(op_type.lower())
        names = [f"{name}_out{i}" if outputs > 1 else f"{name}_out" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, **attributes))
        self._infer(names)
        return names if outputs > 1 else names[0]

    def _infer(self, names: list[str]) -> None:
        graph = helper.make_graph(self.nodes, "g", self.inputs, [], self.initializers)
        model = helper.make_model(graph, opset_imports=self._opsets())
        if self.has_contrib:  # onnx knows no shapes there
            from prunec.passes.canonicalise.facts import gather_facts

            for value, shape in gather_facts(ir.from_proto(model)).shapes.items():
                if value.name in names and shape is not None:
                    self.shapes[value.name] = [d if isinstance(d, int) else 0 for d in shape]
            return
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for info in inferred.graph.value_info:
            if info.name in names:
                self.shapes[info.name] = [d.dim_value for d in info.type.tensor_type.shape.dim]

    @property
    def has_contrib(self) -> bool:
        return any(node.domain == CONTRIB for node in self.nodes)

    def _opsets(self) -> list[onnx.OperatorSetIdProto]:
        own = [helper.make_opsetid("", self.opset)]
        return [*own, helper.make_opsetid(CONTRIB, 1)] if self.has_contrib else own

    def contrib(self, op_type: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> Any:
        """One of ONNX Runtime's own operators."""
        return self.op(op_type, inputs, outputs, domain=CONTRIB, **attributes)

    def model(self) -> ir.Model:
        proto = self.unchecked()
        onnx.checker.check_model(proto, full_check=True)
        return ir.from_proto(proto)

    def unchecked(self) -> onnx.ModelProto:
        infos = [
            helper.make_tensor_value_info(n, self.types.get(n, TensorProto.FLOAT), self.shapes.get(n))
            for n in self.outputs
        ]
        graph = helper.make_graph(self.nodes, "g", self.inputs, infos, self.initializers)
        return helper.make_model(graph, opset_imports=self._opsets(), ir_version=9 if self.opset < 21 else 10)

    # -- layers -------------------------------------------------------------------------------------------------
    def conv(self, x: str, out: int, k: int = 3, *, group: int = 1, bias: bool = True, stride: int = 1) -> str:
        channels = self.shapes[x][1]
        inputs = [x, self.weight(out, channels // group, k, k)]
        if bias:
            inputs.append(self.weight(out))
        return str(self.op("Conv", inputs, group=group, pads=[k // 2] * 4, strides=[stride] * 2))

    def conv_transpose(self, x: str, out: int, *, group: int = 1) -> str:
        channels = self.shapes[x][1]
        weight = self.weight(channels, out // group, 2, 2)
        return str(self.op("ConvTranspose", [x, weight, self.weight(out)], group=group, strides=[2, 2]))

    def relu(self, x: str) -> str:
        return str(self.op("Relu", [x]))

    def batch_norm(self, x: str) -> str:
        n = self.shapes[x][1]
        params = [
            self.weight(n),
            self.weight(n),
            self.weight(n),
            self.const(self.rng.random(n).astype(np.float32) + 0.5),
        ]
        return str(self.op("BatchNormalization", [x, *params]))

    def linear(self, x: str, out: int, *, bias: bool = True) -> str:
        """MatMul on the last axis, plus a bias."""
        y = str(self.op("MatMul", [x, self.weight(self.shapes[x][-1], out)]))
        return str(self.op("Add", [y, self.weight(out)])) if bias else y

    def gemm(self, x: str, out: int, *, trans_b: bool = True) -> str:
        n = self.shapes[x][1]
        weight = self.weight(out, n) if trans_b else self.weight(n, out)
        return str(self.op("Gemm", [x, weight, self.weight(out)], transB=int(trans_b)))

    def reshape(self, x: str, shape: list[int]) -> str:
        return str(self.op("Reshape", [x, self.const(np.array(shape, np.int64))]))
