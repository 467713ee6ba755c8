"""An ONNX Runtime session for a model in memory or on disk: quiet, sequential, with a known number of threads.

A model whose tensors exceed what one protobuf message can hold (2 GiB), or that has tensors in other files, goes
through a temporary folder that is gone before `make_session` returns: ONNX Runtime has read (or, for mapped files,
still holds) the data by then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

_MAX_MESSAGE_BYTES = 1_500_000_000  # protobuf's limit is 2 GiB for the whole message
_EXTERNAL_FROM_BYTES = 1024
_QUIET = 3  # errors only


def make_session(
    model: ir.Model | Path, *, threads: int = 1, outputs: Sequence[str] | None = None, optimise: bool = True
) -> onnxruntime.InferenceSession:
    """A CPU session. `outputs`: names of values to return instead of the graph's outputs, intermediate ones too.

    `optimise=False` switches every graph optimisation off. Raises KeyError for an unknown name in `outputs`.
    """
    options = _options(threads, optimise)
    if isinstance(model, Path):
        if outputs is None:
            return _session(str(model), options)
        model = ir.load(model)
    if outputs is not None:
        model = _with_outputs(model, outputs)
    if _fits_in_memory(model):
        return _session(ir.to_proto(model).SerializeToString(), options)
    with tempfile.TemporaryDirectory(prefix="prunec-") as folder:
        path = Path(folder, "model.onnx")
        ir.save(model, path, external_data="weights.bin", size_threshold_bytes=_EXTERNAL_FROM_BYTES)
        return _session(str(path), options)


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of the session by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _options(threads: int, optimise: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _session(source: str | bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _fits_in_memory(model: ir.Model) -> bool:
    tensors = [v.const_value for graph in model.graphs() for v in graph.initializers.values() if v.const_value]
    external = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    return not external and sum(tensor.nbytes for tensor in tensors) < _MAX_MESSAGE_BYTES


def _with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone (tensors shared) whose graph outputs are `names`, in that order."""
    model = model.clone()
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values.update(graph.initializers)
    values.update({value.name: value for node in graph for value in node.outputs})
    graph.outputs[:] = [values[name] for name in dict.fromkeys(names)]
    return model
