"""One run of a model without graph optimisations, with no more weights in sessions at a time than a stage may keep."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from prunec.statistics.sweep import outputs
from prunec.working_memory import working_bytes


def answers(model: ir.Model, feeds: Mapping[str, np.ndarray], threads: int) -> dict[str, np.ndarray]:
    """Every output by name. Raises what ONNX Runtime says (`ort_errors`)."""
    memory = working_bytes(model)
    (found,) = outputs(model, lambda: iter([dict(feeds)]), threads=threads, ram_bytes=memory, optimise=False)
    return found
