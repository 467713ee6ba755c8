"""What a removed block contributed on average, as a constant in its place: y = x becomes y = x + c.

    c = E[y_dense] − E[y_pruned]       per channel, over calibration data

in the order of the graph, each on the model with the constants before it, so that later ones see what those changed.
A constant stays only if the error of the model's outputs on held-out data falls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.graph import Analysis
from prunec.graph.branches import Block
from prunec.passes.compensate import CompensationRecord
from prunec.passes.compensate.pairs import Kept
from prunec.passes.held_out import held_out_error
from prunec.passes.mask_statistics import constant
from prunec.statistics.collect import CalibrationData


def centre_blocks(
    dense: ir.Model,
    cut: ir.Model,
    kept: Kept,
    blocks: Sequence[Block],
    calibration: CalibrationData,
    *,
    threads: int = 1,
) -> tuple[ir.Model, list[CompensationRecord]]:
    """New model with a constant where that helps, and a record per block. `cut` has an `Identity` for each of them."""
    axes = {block.output: _channel_axis(kept.analysis, dense, block.output) for block in blocks}
    wanted = _means(dense, axes, calibration, threads)
    for name, axis in axes.items():
        wanted[name] = wanted[name][_mask(kept, dense, name, axis)]
    places = {value.name: number for number, node in enumerate(cut.graph) for value in node.outputs}
    model, error = cut, held_out_error(dense, cut, calibration, threads)
    records = []
    for block in sorted((b for b in blocks if b.output in places), key=lambda b: places[b.output]):
        axis = axes[block.output]
        found = _means(model, {block.output: axis}, calibration, threads)[block.output]
        shift = (wanted[block.output] - found).reshape([-1, *([1] * (-axis - 1))])
        candidate = with_constant(model, block.output, shift)
        after = held_out_error(dense, candidate, calibration, threads)
        better = after < error
        records.append(
            CompensationRecord(block.name, "bias" if better else "none", 0.0, 0, error, after if better else error)
        )
        if better:
            model, error = candidate, after
    return model, records


def _channel_axis(analysis: Analysis, model: ir.Model, name: str) -> int:
    """The axis that channels are on, counted from the right: the tracked one, else 1 of an image and the last one."""
    tracked = [axis for axis, ids in enumerate(analysis.value_axes.get(name, ())) if ids is not None]
    rank = _rank(model, name)
    axis = tracked[0] if len(tracked) == 1 else 1 if rank == 4 else rank - 1
    return axis - rank


def _rank(model: ir.Model, name: str) -> int:
    return next(len(value.shape or ()) for node in model.graph for value in node.outputs if value.name == name)


def _mask(kept: Kept, model: ir.Model, name: str, axis: int) -> np.ndarray | slice:
    mask = kept.masks(name, _rank(model, name))[axis]
    return slice(None) if mask is None else mask


def _means(
    model: ir.Model, axes: Mapping[str, int], calibration: CalibrationData, threads: int
) -> dict[str, np.ndarray]:
    """Mean per channel of each named value, float64, over all the data to fit."""
    session = make_session(model, threads=threads, outputs=sorted(axes))
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for feeds in calibration.fit():
        for name, array in run(session, feeds).items():
            rows = np.moveaxis(array, axes[name], -1).reshape(-1, array.shape[axes[name]])
            sums[name] = sums.get(name, 0) + rows.sum(axis=0, dtype=np.float64)
            counts[name] = counts.get(name, 0) + len(rows)
    return {name: total / max(counts[name], 1) for name, total in sums.items()}


def constant_name(output: str) -> str:
    """Of the constant that stands for the block which made `output`."""
    return f"{output}.mean"


def with_constant(model: ir.Model, name: str, shift: np.ndarray) -> ir.Model:
    """A copy in which the identity that makes `name` adds a constant, shaped to be added."""
    copy = model.clone()
    (identity,) = [node for node in copy.graph if any(value.name == name for value in node.outputs)]
    assert identity.op_type == "Identity", f"{name} is not made by an identity"
    kind = (identity.outputs[0].dtype or ir.DataType.FLOAT).numpy()
    value = constant(copy.graph, constant_name(name), shift.astype(kind))
    add = ir.node("Add", [identity.inputs[0], value])
    old = identity.outputs[0]
    ir.convenience.replace_nodes_and_values(copy.graph, identity, [identity], [add], [old], [add.outputs[0]])
    add.name = identity.name
    return copy
