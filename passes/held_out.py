"""How far a model is from the dense one on held-out data: mean over its outputs of ‖y − y_dense‖/‖y_dense‖."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.verify.metrics import Agreement


class HeldOut(Protocol):
    """Batches that nothing was fitted to, calibration data among them."""

    def held_out(self) -> Iterator[dict[str, np.ndarray]]: ...


def held_out_error(dense: ir.Model, model: ir.Model, calibration: HeldOut, threads: int) -> float:
    """inf where an output is not finite."""
    sessions = [make_session(m, threads=threads) for m in (dense, model)]
    outputs: dict[str, Agreement] = {}
    for feeds in calibration.held_out():
        expected, found = (run(session, feeds) for session in sessions)
        for name, y in expected.items():
            if not np.isfinite(found[name]).all():
                return math.inf
            outputs.setdefault(name, Agreement()).add(y, found[name])
    errors = [agreement.numbers().get("relative_error", 0.0) for agreement in outputs.values() if agreement.elements]
    return float(np.mean(errors)) if errors else 0.0
