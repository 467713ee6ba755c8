"""Histograms of values inside a model, from batches of its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.values import in_parts
from prunec.diagnostics import PrunecError
from prunec.passes.quantise.histogram import Histogram
from prunec.statistics.sweep import Batches, sweep
from prunec.working_memory import working_bytes


def observe(
    model: ir.Model, names: Sequence[str], batches: Batches, *, seed: int, threads: int
) -> dict[str, Histogram]:
    """One histogram for each named value (in graph order) over all batches, in one pass over each.

    Raises:
        PrunecError PC480: a value is infinite or no number.
    """
    found = {name: Histogram() for name in names}
    if not found:
        return found
    rng = np.random.default_rng(seed)
    inputs = {str(value.name) for value in model.graph.inputs} & found.keys()
    wanted = in_parts(model, [name for name in names if name not in inputs])
    memory = working_bytes(model)
    for part, feeds, values in sweep(model, wanted, batches, threads=threads, ram_bytes=memory):
        given = {name: feeds[name] for name in inputs} if part == 0 else {}
        for name, array in (given | values).items():
            if not found[name].add(array, rng):
                message, hint = "a value that needs a range for 8 bits is infinite or NaN", "give real inputs: --calib"
                raise PrunecError("PC480", message, where=name, hint=hint)
    return found


def channel_peaks(model: ir.Model, names: Sequence[str], batches: Batches, *, threads: int) -> dict[str, np.ndarray]:
    """Mean over the batches of the largest |value| of each channel (axis 1) of named values, float64 [channels]."""
    sums: dict[str, np.ndarray] = {}
    count = 0
    wanted = in_parts(model, list(names))
    for part, _, values in sweep(model, wanted, batches, threads=threads, ram_bytes=working_bytes(model)):
        count += part == 0
        for name, array in values.items():
            axes = tuple(axis for axis in range(array.ndim) if axis != 1)
            sums[name] = sums.get(name, 0.0) + np.abs(array).max(axis=axes, initial=0.0).astype(np.float64)
    return {name: total / max(count, 1) for name, total in sums.items()}
