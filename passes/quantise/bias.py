"""Biases that take away what rounding adds to the mean of every output channel.

Rounded weights and clipped inputs shift a channel by a constant on average (Nagel et al., Data-Free Quantization, 2019,
here with data). Layers are corrected in graph order, some at a time, on what the corrected ones before them give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.graph.shapes import constant
from prunec.passes.compensate.layers import Layer

STAGES = 12
"""Passes over the data at most."""
Feeds = dict[str, np.ndarray]
Shifts = dict[str, np.ndarray]


def corrected(
    model: ir.Model,
    layers: Sequence[Layer],
    write: Callable[[Shifts], ir.Model],
    batches: Sequence[Feeds],
    *,
    threads: int,
) -> Shifts:
    """What to add to the bias of each layer that has one, by node name, float64 [channels].

    `write` makes the quantised model with such shifts.
    """
    able = [layer for layer in layers if layer.can_shift and not layer.adds_bias_outside]
    shifts: Shifts = {}
    if not able:
        return shifts
    wanted = means(model, able, batches, threads=threads)
    for some in np.array_split(np.arange(len(able)), min(STAGES, len(able))):
        own = [able[int(i)] for i in some]
        got = means(write(shifts), own, batches, threads=threads)
        shifts |= {layer.name: wanted[layer.name] - got[layer.name] for layer in own}
    return shifts


def means(model: ir.Model, layers: Sequence[Layer], batches: Sequence[Feeds], *, threads: int) -> dict[str, np.ndarray]:
    """Mean of every output channel of the layers (by node name), over all batches."""
    outputs = {node.name: str(node.outputs[0].name) for node in model.graph}
    session = make_session(model, threads=threads, outputs=[outputs[layer.name] for layer in layers])
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for feeds in batches:
        found = run(session, feeds)
        for layer in layers:
            rows = layer.target_rows(found[outputs[layer.name]])
            sums[layer.name] = sums.get(layer.name, 0.0) + rows.sum(axis=0, dtype=np.float64)
            counts[layer.name] = counts.get(layer.name, 0) + len(rows)
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def with_shifts(model: ir.Model, shifts: Shifts) -> ir.Model:
    """A copy of the float `model` with shifted biases."""
    copy = model.clone()
    nodes = {node.name: node for node in copy.graph}
    for name, shift in shifts.items():
        node = nodes[name]
        old = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        array = (np.zeros(len(shift)) if old is None else old.reshape(-1)) + shift
        bias = ir.Value(
            name=f"{name}.corrected",
            const_value=ir.Tensor(array.astype(np.float32), name=f"{name}.corrected"),
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape(array.shape),
        )
        copy.graph.register_initializer(bias)
        if len(node.inputs) <= 2:
            node.resize_inputs(3)
        before = node.inputs[2]
        node.replace_input_with(2, bias)
        if before is not None and not before.uses() and (before.name or "") in copy.graph.initializers:
            del copy.graph.initializers[before.name or ""]
    return copy
