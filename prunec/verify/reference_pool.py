"""Global maxima for the float64 reference: ONNX's own fail on anything but images."""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun


class GlobalMaxPool(OpRun):
    """`GlobalMaxPool` of ai.onnx: [N, C, …] of any rank to [N, C, 1, …]; the name is the operator's."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)
