"""Solvers: which weights of one layer stay, and what values they take. Pure numerics, no graph.

`problem.py` is a layer as a quadratic, `quadratic.py` its damped form, one file per solver, `portfolio.py` (`solve`)
the ones that compete under a named effort, `single.py`
one of them by name, `permutation.py` which channels share a group.
"""

from prunec.passes.solve.permutation import order_inputs, order_outputs
from prunec.passes.solve.portfolio import EFFORTS, Effort, solve
from prunec.passes.solve.problem import LayerProblem, Sample
from prunec.passes.solve.single import MASKS, SINGLE, Single
from prunec.passes.solve.solution import Solution, Trial

__all__ = [
    "EFFORTS",
    "MASKS",
    "SINGLE",
    "Effort",
    "LayerProblem",
    "Sample",
    "Single",
    "Solution",
    "Trial",
    "order_inputs",
    "order_outputs",
    "solve",
]
