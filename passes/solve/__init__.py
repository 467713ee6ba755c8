"""Solvers: which weights of one layer stay, and what values they take. Pure numerics, no graph.

`problem.py` is a layer as a quadratic, `quadratic.py` its damped form, one file per solver, `portfolio.py` (`solve`)
the ones that compete under a named effort, `permutation.py` which channels share a group.
"""

from prunec.passes.solve.permutation import order_inputs, order_outputs
from prunec.passes.solve.portfolio import EFFORTS, Effort, Solution, Trial, solve
from prunec.passes.solve.problem import LayerProblem, Sample

__all__ = ["EFFORTS", "Effort", "LayerProblem", "Sample", "Solution", "Trial", "order_inputs", "order_outputs", "solve"]
