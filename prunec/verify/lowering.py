"""Check of a lowering: the artifact that was built for a target against the pruned model that it was built from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from prunec.diagnostics import GateError
from prunec.verify.inputs import Run
from prunec.verify.metrics import worst_relative
from prunec.verify.records import LoweringRecord

FLOAT32_TOLERANCE = 1e-4
"""Kernels of another library sum in another order; deeper differences than this are errors."""


def check_lowering(
    reference: Run, artifact: Run, batches: Iterable[Mapping[str, np.ndarray]], *, tolerance: float = FLOAT32_TOLERANCE
) -> LoweringRecord:
    """Largest error over `batches`, relative to the range of each output.

    Raises:
        GateError PC503: it is above `tolerance`.
    """
    error = max((worst_relative(reference(feeds), artifact(feeds)) for feeds in batches), default=float("inf"))
    if not error <= tolerance:
        raise GateError(
            "PC503",
            f"the artifact differs from the pruned model by {error:.1e}, more than {tolerance:.0e}",
            hint="report this model; the package's model.onnx is not affected",
        )
    return LoweringRecord(max_rel=error, tolerance=tolerance, passed=True)
