"""How large values inside a model get on calibration data: what FP16 can hold, and scales for INT8."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.backends.onnx.values import in_parts
from prunec.backends.tensorrt.half import FLOAT, LARGEST

HEADROOM = 4.0
"""A value stays FP32 where calibration data bring it within this factor of FP16's largest (65504): other data reach
further than the few samples that are looked at."""


def largest(
    model: ir.Model, batches: Iterable[Mapping[str, np.ndarray]], names: Collection[str], *, threads: int = 1
) -> dict[str, float]:
    """Largest finite magnitude of each named float value over all batches; inf where one is not finite."""
    found = dict.fromkeys(sorted(names), 0.0)
    kept = list(batches)
    for part in filter(None, in_parts(model, found)):
        session = make_session(model, threads=threads, outputs=part)
        for feeds in kept:
            for name, array in run(session, feeds).items():
                if array.size:
                    top = float(np.abs(array.astype(np.float32, copy=False)).max())
                    found[name] = max(found[name], top if np.isfinite(top) else np.inf)
    return found


def float_values(model: ir.Model) -> list[str]:
    """Names of all FP32 values that nodes of the main graph make."""
    return [value.name or "" for node in model.graph for value in node.outputs if value.dtype == FLOAT and value.name]


def too_large(model: ir.Model, tops: Mapping[str, float]) -> dict[str, str]:
    """Nodes that read or make a value too near FP16's largest, with the reason."""
    limit = LARGEST / HEADROOM
    found = {}
    for node in model.graph:
        values = [value.name or "" for value in (*node.inputs, *node.outputs) if value is not None]
        top = max((tops.get(name, 0.0) for name in values), default=0.0)
        if top > limit:
            found[node.name or ""] = "a value came too near FP16's largest"
    return found
