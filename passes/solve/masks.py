"""Masks without any update of the weights: magnitude and Wanda (arXiv 2306.11695).

Magnitude keeps the largest |w|, Wanda the largest |w|·√E[x²]; both as squares, since patterns add saliencies up.
Wanda compares inside each output row.
"""

from __future__ import annotations

import numpy as np

from prunec.passes.solve.quadratic import Quadratic
from prunec.patterns.base import Mask, Pattern, Scope


def magnitude_mask(q: Quadratic, pattern: Pattern, level: float, scope: Scope = "layer") -> Mask:
    """From W₀, whatever the inputs are."""
    return pattern.project(np.square(q.problem.weight), q.layout, level, scope)


def wanda_mask(q: Quadratic, pattern: Pattern, level: float, scope: Scope = "row") -> Mask:
    """From T and diag(A)."""
    return pattern.project(q.saliency(q.target), q.layout, level, scope)
