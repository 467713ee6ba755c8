"""Sparsity patterns as projections: N:M, blocks, V:N:M, whole kernels, unstructured.

A pattern says which masks are allowed on a weight seen as a matrix (`Layout`), finds the allowed mask that keeps the
most saliency (`project`), and proves that a weight has one (`check`). `parse` reads its name.
"""

from prunec.patterns.base import Pattern, Proof
from prunec.patterns.layout import Layout
from prunec.patterns.parse import HELP, parse
from prunec.patterns.zeros import masked

__all__ = ["HELP", "Layout", "Pattern", "Proof", "masked", "parse"]
