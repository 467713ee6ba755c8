"""Parts of a model as ONNX Runtime sessions: a list of nodes, the values they read, the values that are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

from prunec.backends.onnx.weights import SharedWeights

Feeds = Mapping[str, np.ndarray]
WEIGHTS_IN_8_BITS = "WeightBiasQuantization"
"""An optimisation that rounds float weights between quantised activations, with one scale a tensor."""


class Segment:
    """A session over `nodes`. `feeds` shows names, types and ranks of the inputs; a weight among them becomes one."""

    def __init__(
        self,
        model: ir.Model,
        nodes: Sequence[onnx.NodeProto],
        weights: Iterable[ir.Value],
        feeds: Feeds,
        outputs: Sequence[str],
        threads: int,
        *,
        optimise: bool = True,
    ) -> None:
        given, shared = dict(feeds), SharedWeights()
        graph = helper.make_graph(
            list(nodes),
            "segment",
            [_input(name, array) for name, array in given.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [_tensor(value, shared) for value in weights if value.name not in given],
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
        proto = helper.make_model(graph, ir_version=model.ir_version, opset_imports=opsets)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # a stored output would keep a whole region of the arena
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        shared.offer(options)
        self._session = shared.attach(
            onnxruntime.InferenceSession(
                proto.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[WEIGHTS_IN_8_BITS],
            )
        )
        self.inputs = tuple(given)
        self.outputs = tuple(outputs)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        wanted = {name: feeds[name] for name in self.inputs}
        return dict(zip(self.outputs, self._session.run(list(self.outputs), wanted), strict=True))


def proto_of(node: ir.Node) -> onnx.NodeProto:
    return ir.serde.serialize_node(node)


def _input(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    """Only the rank is stated: lengths may differ from batch to batch."""
    is_text = array.dtype == object
    kind = int(onnx.TensorProto.STRING) if is_text else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, [None] * array.ndim)


def _tensor(value: ir.Value, shared: SharedWeights) -> onnx.TensorProto:
    tensor = value.const_value
    assert tensor is not None
    proto = ir.serde.serialize_tensor(shared.reference(tensor, value.name or ""))
    proto.name = value.name or ""
    return proto
