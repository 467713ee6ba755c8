"""Compensation: refit what remains after a cut to the dense model's outputs, layer by layer.

`driver.py` is the pass; `runner.py` executes both models side by side; `layers.py` says what can be refitted;
`fit.py`, `rows.py` and `solve.py` are the least squares; `judge.py` measures what a candidate is worth.
"""

from prunec.passes.compensate.driver import compensate
from prunec.passes.compensate.options import Compensated, CompensationRecord, LayerSolver, Method, Options, Progress

__all__ = ["Compensated", "CompensationRecord", "LayerSolver", "Method", "Options", "Progress", "compensate"]
