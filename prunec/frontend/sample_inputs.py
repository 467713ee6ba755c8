"""What the model wants to be fed: one `InputSpec` per graph input, and how samples lie on the leading axis.

Layout: if every input (scalars aside) has a leading axis that is dynamic, or static with the same size B, samples lie
on that axis, `unit` of them at a time (1 if dynamic, else B). If the leading axes disagree (a state of shape
[2, 1, 128] beside x of shape [1, 512]), a sample is one whole feed and data files have one more axis in front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from prunec.diagnostics import PrunecError
from prunec.frontend.input_shapes import real_inputs
from prunec.graph.shapes import dims

MAX_BATCH = 8  # samples per batch when the batch axis is dynamic
BATCH_BYTES = 64 * 1024**2  # all activations of one batch, about


@dataclass(frozen=True)
class InputSpec:
    """`shape`: int for static, str for named dynamic, None for anonymous dynamic axes; None: the rank is not known.

    `bound`: integers must be below this (the rows of the embedding they select), None if not known.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...] | None
    bound: int | None = None


@dataclass(frozen=True)
class Layout:
    """`is_batched`: samples lie on the leading axis; `unit`: how many at least; `most`: how many at most."""

    inputs: tuple[InputSpec, ...]
    is_batched: bool
    unit: int
    most: int

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in self.inputs]


def layout_of(model: ir.Model) -> Layout:
    """The inputs of `model` and where its samples lie. PC315: the model has no inputs."""
    specs = tuple(_spec(value) for value in real_inputs(model))
    if not specs:
        raise PrunecError("PC315", "the model has no inputs to calibrate", hint="prunec needs a model that reads data")
    leading = [spec.shape[0] if spec.shape else None for spec in specs if spec.shape != ()]
    static = {dim for dim in leading if isinstance(dim, int)}
    is_dynamic = any(not isinstance(dim, int) for dim in leading)
    if not leading or len(static) > 1 or (is_dynamic and static - {1}):
        return Layout(specs, is_batched=False, unit=1, most=1)
    if static:
        unit = static.pop()
        return Layout(specs, is_batched=True, unit=unit, most=unit)
    return Layout(specs, is_batched=True, unit=1, most=_batch_that_fits(model))


def _batch_that_fits(model: ir.Model) -> int:
    """1 to `MAX_BATCH`: where every activation of a batch is kept at once, it is this that bounds the memory."""
    sample = 0
    for node in model.graph:
        for value in node.outputs:
            lengths = dims(value) or ()
            sample += 4 * math.prod(d if isinstance(d, int) else 1 for d in lengths)
    return max(1, min(MAX_BATCH, BATCH_BYTES // max(sample, 1)))


def _spec(value: ir.Value) -> InputSpec:
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    shape = None
    if value.shape is not None:
        shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    bound = _vocabulary(value) if dtype.kind in "iu" else None
    return InputSpec(str(value.name), dtype, shape, bound)


_TRANSPARENT = frozenset({"Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Transpose"})


def _vocabulary(value: ir.Value) -> int | None:
    """The smallest number of rows among the constant tables that `value` indexes with Gather."""
    bounds: list[int] = []
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        for node, index in current.uses():
            if node.op_type == "Gather" and index == 1:
                table, axis = node.inputs[0], node.attributes.get("axis")
                if table is not None and table.const_value is not None:
                    bounds.append(table.const_value.shape.numpy()[0 if axis is None else axis.as_int()])
            elif node.op_type in _TRANSPARENT and index == 0 and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append(node.outputs[0])
    return min(bounds, default=None)
