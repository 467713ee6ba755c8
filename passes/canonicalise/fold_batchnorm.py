"""BatchNormalization after a linear operator → into its weight and bias.

With s = γ / √(σ² + ε):   BN(W x + b) = (s W) x + (s (b − μ) + β),   s per output channel.

Computed in float64, stored in the weight's type. The new weight `Value` keeps γ in `meta[BN_SCALE]` (float32, one
per output channel): criteria that score a channel by its BN scale need it, and it is not recoverable from s W.
`ir.Model.clone` keeps `meta`; saving to a file does not.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from prunec.passes.canonicalise.tools import (
    add_constant,
    attribute_int,
    constant,
    is_op,
    nodes_of,
    only_reader,
    rename_output,
)

BN_SCALE = "prunec.bn_scale"


class FoldBatchNorm(ir.passes.InPlacePass):
    """Rewrite Conv, ConvTranspose, Gemm or MatMul(x, W) [+ b], followed by BN, to the linear operator alone.

    1. The linear operator's output has no other reader, all parameters are constants, BN is in inference mode.
    2. A weight with other readers is copied first.
    3. BN in front of a convolution stays: with zero padding it cannot be folded.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        folded = sum(_fold(node) for node in nodes_of(model) if is_op(node, "BatchNormalization"))
        return ir.passes.PassResult(model, modified=folded > 0)


def _fold(norm: ir.Node) -> bool:
    data = norm.inputs[0]
    parameters = [constant(value) for value in norm.inputs[1:5]]
    if data is None or any(p is None for p in parameters) or attribute_int(norm, "training_mode", 0):
        return False
    if any(output.uses() or output.is_graph_output() for output in norm.outputs[1:]):
        return False
    linear, add = _linear(data)
    if linear is None or linear.graph is not norm.graph:
        return False
    weight = constant(linear.inputs[1])
    bias = _bias(linear, add)
    if weight is None or isinstance(bias, bool):
        return False
    gamma, beta, mean, variance = (p.astype(np.float64) for p in parameters if p is not None)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    scale = gamma / np.sqrt(variance + epsilon)
    axis = _output_axis(linear)
    channels = weight.shape[axis] * (attribute_int(linear, "group", 1) if is_op(linear, "ConvTranspose") else 1)
    if scale.shape != (channels,) or not np.isfinite(scale).all():
        return False
    old_bias = np.zeros(channels) if bias is None else np.broadcast_to(bias.astype(np.float64).reshape(-1), (channels,))
    _set_weight(linear, _scaled(linear, weight.astype(np.float64), scale, axis), weight.dtype, gamma)
    output = _set_bias(linear, add, (old_bias - mean) * scale + beta, weight.dtype)
    rename_output(norm.outputs[0], output)
    assert norm.graph is not None
    norm.graph.remove(norm, safe=True)
    return True


def _linear(value: ir.Value) -> tuple[ir.Node | None, ir.Node | None]:
    """(the linear operator that alone feeds `value`, the Add of a bias in between)."""
    node = value.producer()
    if node is None or only_reader(value) is None:
        return None, None
    if is_op(node, "Conv", "ConvTranspose"):
        return node, None
    if is_op(node, "Gemm") and attribute_int(node, "transA", 0) == 0 and _factors_are_one(node):
        return node, None
    if is_op(node, "MatMul") and _rank(node.outputs[0]) == 2 and _rank(node.inputs[1]) == 2:
        return node, None
    if is_op(node, "Add"):
        for value_in in node.inputs:
            product = None if value_in is None else value_in.producer()
            if value_in is not None and is_op(product, "MatMul") and only_reader(value_in) is not None:
                assert product is not None
                fits = _rank(value_in) == 2 and _rank(product.inputs[1]) == 2 and _rank(node.outputs[0]) == 2
                return (product, node) if fits else (None, None)
    return None, None


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _factors_are_one(gemm: ir.Node) -> bool:
    return all(name not in gemm.attributes or gemm.attributes[name].as_float() == 1.0 for name in ("alpha", "beta"))


def _bias(linear: ir.Node, add: ir.Node | None) -> np.ndarray | bool | None:
    """The constant bias, None for no bias, False when there is one that is not constant or not per channel."""
    if add is not None:
        others = [value for value in add.inputs if value is not linear.outputs[0]]
        found = constant(others[0]) if len(others) == 1 else None
    elif is_op(linear, "MatMul") or len(linear.inputs) < 3 or linear.inputs[2] is None:
        return None
    else:
        found = constant(linear.inputs[2])
    if found is None or found.size != (found.shape[-1] if found.ndim else 1):
        return False
    return found


def _output_axis(linear: ir.Node) -> int:
    if is_op(linear, "Conv"):
        return 0
    if is_op(linear, "Gemm"):
        return 0 if attribute_int(linear, "transB", 0) else 1
    return 1


def _scaled(linear: ir.Node, weight: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """s · W. ConvTranspose weights are [C_in, C_out / group, …]: the group is a block of the first axis."""
    group = attribute_int(linear, "group", 1)
    if not is_op(linear, "ConvTranspose") or group == 1:
        return np.asarray(weight * scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)]))
    blocks = weight.reshape(group, -1, *weight.shape[1:])
    factors = scale.reshape(group, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    return np.reshape(blocks * factors, weight.shape)


def _set_weight(linear: ir.Node, weight: np.ndarray, dtype: np.dtype, gamma: np.ndarray) -> None:
    """The scaled weight under the old name, or under a new one if the old weight has other readers."""
    old = linear.inputs[1]
    assert old is not None and isinstance(linear.graph, ir.Graph)
    new = _replacement(linear.graph, old, weight.astype(dtype), is_shared=len(list(old.uses())) > 1)
    new.meta[BN_SCALE] = gamma.astype(np.float32)
    linear.replace_input_with(1, new)


def _set_bias(linear: ir.Node, add: ir.Node | None, bias: np.ndarray, dtype: np.dtype) -> ir.Value:
    """Give the linear operator its bias; return the value that now is the result."""
    graph = linear.graph
    assert isinstance(graph, ir.Graph)
    value = add_constant(graph, f"{linear.name}_bias", bias.astype(dtype))
    if add is not None:
        add.replace_input_with(next(i for i, v in enumerate(add.inputs) if v is not linear.outputs[0]), value)
        return add.outputs[0]
    if is_op(linear, "MatMul"):
        output = linear.outputs[0]
        node = ir.Node("", "Add", [output, value], name=f"{linear.name}_add_bias")
        node.outputs[0].name, node.outputs[0].type = f"{output.name}_biased", output.type
        node.outputs[0].shape = output.shape
        output.replace_all_uses_with(node.outputs[0])
        node.replace_input_with(0, output)
        graph.insert_after(linear, node)
        return node.outputs[0]
    if len(linear.inputs) < 3:
        linear.resize_inputs(3)
    linear.replace_input_with(2, value)
    return linear.outputs[0]


def _replacement(graph: ir.Graph, old: ir.Value, array: np.ndarray, *, is_shared: bool) -> ir.Value:
    name = str(old.name)
    if not is_shared and old.graph is graph:
        del graph.initializers[name]
        old.name = f"{name}_unscaled"
    value = add_constant(graph, name, array)
    value.metadata_props.update(old.metadata_props)
    return value
