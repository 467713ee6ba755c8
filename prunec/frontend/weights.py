"""Is every weight readable and finite.

NaN is refused everywhere. Inf is refused where it would be a weight (an input of an operator that multiplies or
normalises); elsewhere it is an ordinary constant, such as the −inf of an attention mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.graph.mapped import opened

_WEIGHTED = frozenset(
    "Conv ConvTranspose Gemm MatMul Einsum LSTM GRU RNN BatchNormalization LayerNormalization GroupNormalization "
    "InstanceNormalization RMSNormalization PRelu".split()
)
_CHUNK = 1 << 18  # elements; stays in the cache


def check(model: ir.Model) -> None:
    """PC012 and PC018, naming the tensor."""
    for name, tensor, users in _tensors(model):
        array = _array(name, tensor)
        if array is None:
            continue
        has_nan, has_inf = _findings(array)
        if has_nan or (has_inf and any(user in _WEIGHTED for user in users)):
            raise PrunecError(
                "PC012",
                f"{'NaN' if has_nan else 'Inf'} in a tensor of shape {list(array.shape)}",
                where=name,
                hint="the model is broken (diverged training, overflow in float16): export a good checkpoint",
            )


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol, set[str]]]:
    """(name, tensor, operators that read it) of every initializer and every tensor attribute."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield str(value.name), value.const_value, {node.op_type for node in value.consumers()}
    containers: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for container in containers:
        for node in ir.traversal.RecursiveGraphIterator(container):
            name = next((value.name for value in node.outputs if value.name), node.name) or node.op_type
            readers = {reader.op_type for value in node.outputs for reader in value.consumers()}
            for attribute in node.attributes.values():
                if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                    yield name, attribute.value, readers


def _array(name: str, tensor: ir.TensorProtocol) -> np.ndarray | None:
    """The values of a float tensor; None for other types, whose data is still read once."""
    try:
        dtype = tensor.dtype
        if dtype == ir.DataType.STRING:
            return None
        array = opened(tensor)
        agrees = array.shape == tuple(tensor.shape.numpy())
        is_float = dtype.is_floating_point()
    except Exception as error:  # the tensor is whatever the file says it is
        raise _mismatch(name) from error
    if not agrees:
        raise _mismatch(name)
    return array if is_float else None


def _mismatch(name: str) -> PrunecError:
    return PrunecError(
        "PC018",
        "the data, the type and the shape of the tensor disagree",
        where=name,
        hint="the file is damaged: export or download it again",
    )


def _findings(array: np.ndarray) -> tuple[bool, bool]:
    """(has NaN, has Inf), in chunks so that a memory-mapped tensor is never copied whole."""
    flat = array.reshape(-1)
    has_nan = has_inf = False
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if chunk.dtype.kind != "f":
            chunk = chunk.astype(np.float32)
        with np.errstate(all="ignore"):
            total = chunk.sum(dtype=np.float64)  # NaN and Inf survive a sum; faster than looking at each
        if not np.isfinite(total):
            has_nan |= bool(np.isnan(chunk).any())
            has_inf |= bool(np.isinf(chunk).any())
    return has_nan, has_inf
