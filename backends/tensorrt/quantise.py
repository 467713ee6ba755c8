"""INT8 with sparse weights: planned layers between quantisers, zeros stay zero.

    x → QuantizeLinear(s_x) → DequantizeLinear(s_x) ─┐
                        W int8 → DequantizeLinear(s_w) ─┴→ Conv, Gemm or MatMul

Symmetric, zero points 0: s_x = max |x| / 127 per tensor over calibration data, s_w = max |W| / 127 per output
channel, both rounded to FP16 first, since the rest of the graph is FP16. A weight of 0 becomes the integer 0, and
small ones may too, so a 2:4 weight stays 2:4. TensorRT fuses the pairs around a layer into one INT8 kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from prunec.backends.base import Feeds, Verdict
from prunec.backends.tensorrt.half import HALF_SCALES
from prunec.backends.tensorrt.ranges import largest
from prunec.backends.tensorrt.weights import NotFound, find_weight
from prunec.diagnostics import PrunecError
from prunec.passes.canonicalise.opset import with_opset
from prunec.passes.quantise.nodes import add_constant, add_pair

LEVELS = 127
SMALLEST = float(np.finfo(np.float16).tiny)


def with_half_scales(model: ir.Model) -> ir.Model:
    """`model`, or a copy of it in the first opset whose quantisers take FP16.

    Raises:
        PrunecError PC443: it cannot be converted.
    """
    raised = with_opset(model, HALF_SCALES)
    if raised is None:
        message = f"INT8 needs opset {HALF_SCALES}, and the model's {model.opset_imports.get('', 0)} cannot be raised"
        raise PrunecError("PC443", message, where="--precision", hint="export it with a newer opset, or use fp16")
    return raised


def activations(model: ir.Model, layers: Collection[str], verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Layer → name of the value that its weight multiplies."""
    nodes = {node.name: node for node in model.graph}
    found = {}
    for verdict in verdicts:
        if verdict.node in layers:
            index, _ = _weight(nodes[verdict.node], verdict)
            value = nodes[verdict.node].inputs[1 - index]
            found[verdict.node] = str(value.name) if value is not None else ""
    return found


def scales(model: ir.Model, names: Collection[str], batches: Iterable[Feeds], *, threads: int = 1) -> dict[str, float]:
    """Value → scale, from the largest magnitude over all batches."""
    inputs = {str(value.name) for value in model.graph.inputs}
    kept = list(batches)
    tops = largest(model, kept, [name for name in names if name not in inputs], threads=threads)
    tops |= {name: max(float(np.abs(feeds[name]).max()) for feeds in kept) for name in inputs & set(names)}
    return {name: _scale(top) for name, top in tops.items()}


def quantise(
    model: ir.Model, verdicts: Iterable[Verdict], values: Mapping[str, str], given: Mapping[str, float]
) -> ir.Model:
    """A copy of `model` with the layers of `values` (→ activation) between quantisers of the `given` scales."""
    result = model.clone()
    graph = result.graph
    nodes = {node.name: node for node in graph}
    pairs: dict[str, ir.Value] = {}
    for verdict in verdicts:
        name = values.get(verdict.node)
        if name is None:
            continue
        node = nodes[verdict.node]
        index, array = _weight(node, verdict)
        data = node.inputs[1 - index]
        assert data is not None
        if name not in pairs:
            pairs[name] = add_pair(graph, data, given[name], np.array(0, np.int8))
        node.replace_input_with(1 - index, pairs[name])
        node.replace_input_with(index, _dequantised(graph, node, array, verdict))
    return result


def quantised_weight(array: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(int8 weight, float32 scales that FP16 holds): one scale for each place along `axis`, or one for all."""
    others = None if axis is None else tuple(i for i in range(array.ndim) if i != axis)
    tops = np.abs(array).max(axis=others, keepdims=True)
    steps = np.vectorize(_scale, otypes=[np.float32])(tops)
    return np.clip(np.rint(array / steps), -LEVELS, LEVELS).astype(np.int8), steps.reshape(
        -1 if axis is not None else ()
    )


def _scale(top: float) -> float:
    """Rounded up to FP16, so that the largest value does not clip; never subnormal."""
    if not np.isfinite(top) or top <= 0:
        return 1.0
    step = np.float16(max(top / LEVELS, SMALLEST))
    return float(step if float(step) * LEVELS >= top else np.nextafter(step, np.float16(np.inf)))


def _weight(node: ir.Node, verdict: Verdict) -> tuple[int, np.ndarray]:
    """Which input is the weight, and its values as that input has them."""
    for index in (1, 0):
        found = find_weight(node.inputs[index])
        if not isinstance(found, NotFound) and (found.value.name or "") == verdict.tensor:
            return index, np.asarray(found.tensor.numpy()).transpose(found.order)
    raise AssertionError(f"{verdict.node} has no weight {verdict.tensor}")


def _output_axis(node: ir.Node, index: int, array: np.ndarray) -> int | None:
    """Of the outputs in the weight; None for a stack of matrices, which gets one scale."""
    if node.op_type == "Conv":
        return 0
    if array.ndim != 2:
        return None
    if node.op_type == "Gemm":
        turned = node.attributes.get_int("transB" if index else "transA", 0)
        return (0 if turned else 1) if index else (1 if turned else 0)
    return 1 if index else 0


def _dequantised(graph: ir.Graph, node: ir.Node, array: np.ndarray, verdict: Verdict) -> ir.Value:
    index = next(i for i in (1, 0) if not isinstance(find_weight(node.inputs[i]), NotFound))
    axis = _output_axis(node, index, array)
    integers, steps = quantised_weight(array.astype(np.float32), axis)
    weight = add_constant(graph, f"{verdict.tensor}.int8", integers)
    step = add_constant(graph, f"{verdict.tensor}.scale", steps)
    zero = add_constant(graph, f"{verdict.tensor}.zero", np.zeros(steps.shape, np.int8))
    attributes = {} if axis is None else {"axis": axis}
    made = ir.node("DequantizeLinear", [weight, step, zero], attributes=attributes, name=f"{node.name}.weight")
    made.outputs[0].name = f"{node.name}.weight_dequantised"
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(array.shape)
    graph.insert_before(node, made)
    return made.outputs[0]
