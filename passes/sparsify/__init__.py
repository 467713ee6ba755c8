"""Sparsify: give layers a pattern, one after the other, against the dense model's outputs.

`sparsifier.py` is what the sequential driver of `passes/compensate` hands those layers to; `problems.py` turns the rows
it sees into a `LayerProblem`; `proof.py` counts zeros in the finished model.
"""

from prunec.passes.sparsify.proof import prove_patterns
from prunec.passes.sparsify.sparsifier import LayerPattern, LayerResult, Sparsifier

__all__ = ["LayerPattern", "LayerResult", "Sparsifier", "prove_patterns"]
