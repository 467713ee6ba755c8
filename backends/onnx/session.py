"""An ONNX Runtime session for a model in memory or on disk: quiet, sequential, with a known number of threads.

Weights are shared with the session, not copied into it (see `weights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from prunec.backends.onnx.weights import SharedWeights

_QUIET = 3  # errors only


def make_session(
    model: ir.Model | Path,
    *,
    threads: int = 1,
    outputs: Sequence[str] | None = None,
    optimise: bool = True,
    quantisers_as_written: bool = False,
) -> onnxruntime.InferenceSession:
    """A CPU session. `outputs`: names of values to return instead of the graph's outputs, intermediate ones too.

    `optimise=False` switches every graph optimisation off, `quantisers_as_written` those of QuantizeLinear and
    DequantizeLinear: one of them quantises a bias by the product of two scales, which underflows where they are FP16.
    Raises KeyError for an unknown name in `outputs`.
    """
    options = _options(threads, optimise)
    if quantisers_as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if isinstance(model, Path):
        if outputs is None:
            return _session(str(model), options)
        model = ir.load(model)
    weights = SharedWeights()
    model = _with_outputs(model, outputs)
    _drop_unread(model.graph)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            value.const_value = weights.reference(value.const_value, name)
    weights.offer(options)
    return weights.attach(_session(ir.to_proto(model).SerializeToString(), options))


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of the session by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _options(threads: int, optimise: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it keeps what one run took at most for as long as the session lives
    options.enable_mem_pattern = False
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _session(source: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _with_outputs(model: ir.Model, names: Sequence[str] | None) -> ir.Model:
    """A clone (tensors shared) whose graph outputs are `names`, in that order."""
    model = model.clone()
    if names is None:
        return model
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values.update(graph.initializers)
    values.update({value.name: value for node in graph for value in node.outputs})
    graph.outputs[:] = [values[name] for name in dict.fromkeys(names)]
    return model


def _drop_unread(graph: ir.Graph) -> None:
    """Without the initializers that nothing reads: ONNX Runtime drops them first, then misses those that are shared."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
