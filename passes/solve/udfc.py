"""Without any data: UDFC (arXiv 2308.07209), and a Hessian from the weights of the layer before.

A dropped channel j of a producer with rows V [C, f] and biases c [C] (batch norm folded) is written with the kept ones,

    s = argmin ‖v_j − V_Kᵀ s‖² + α₂(c_j − c_Kᵀ s)² + α₁‖s‖²,

and its consumers take it over: W[:, K] += W[:, j] sᵀ. Behind a ReLU only s ≥ 0 means anything (non-negative least
squares). For patterns the same assumption, white inputs u of the producer, gives moments of its outputs V u + c: H =
VVᵀ + ccᵀ, or behind a ReLU the arc-cosine kernel (Cho and Saul, 2009) of the Gaussian they are.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from prunec.passes.solve.hessian import Double, MatrixHessian
from prunec.passes.solve.problem import LayerProblem, Sample
from prunec.patterns import Layout
from prunec.patterns.base import Mask


def merge_weights(
    producer: Double, bias: Double, keep: Mask, *, relu: bool = False, alpha1: float = 1e-3, alpha2: float = 1e-2
) -> Double:
    """S [dropped, kept]: what each dropped channel is worth in kept ones. `alpha1` is relative to the mean ‖v‖²."""
    kept, dropped = producer[keep], producer[~keep]
    ridge = alpha1 * float(np.square(producer).sum(axis=1).mean())
    if relu:
        rows = np.vstack([kept.T, np.sqrt(alpha2) * bias[keep][None], np.sqrt(ridge) * np.eye(len(kept))])
        found = np.zeros((len(dropped), len(kept)))
        for j, (own, offset) in enumerate(zip(dropped, bias[~keep], strict=True)):
            found[j] = nnls(rows, np.concatenate([own, [np.sqrt(alpha2) * offset], np.zeros(len(kept))]))[0]
        return found
    system = kept @ kept.T + alpha2 * np.outer(bias[keep], bias[keep]) + ridge * np.eye(len(kept))
    right = kept @ dropped.T + alpha2 * np.outer(bias[keep], bias[~keep])
    merged: Double = cho_solve(cho_factor(system, lower=True), right).T
    return merged


def absorb(weight: Double, keep: Mask, merged: Double) -> Double:
    """Consumer weights [m, positions·C] with only the kept channels left, the dropped ones taken over."""
    split = weight.reshape(len(weight), -1, len(keep))
    found: Double = (split[..., keep] + split[..., ~keep] @ merged).reshape(len(weight), -1)
    return found


def white_hessian(producer: Double, bias: Double, *, relu: bool) -> Double:
    """E[z zᵀ] [C, C] of z = f(V u + c) with u white.

    Behind a ReLU the bias enters as one more white input, which is exact where it is small beside ‖v‖.
    """
    rows = np.hstack([producer, bias[:, None]])
    gram: Double = rows @ rows.T
    if not relu:
        return gram
    norms = np.sqrt(np.diagonal(gram))
    lengths = np.outer(norms, norms)
    cosine = np.clip(np.divide(gram, lengths, out=np.zeros_like(gram), where=lengths > 0), -1, 1)
    angle = np.arccos(cosine)
    found: Double = lengths * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    return found


def data_free_problem(
    weight: Double, producer: Double, bias: Double, *, relu: bool, positions: int = 1
) -> LayerProblem:
    """A problem for `solve` from two layers' weights alone; kernel positions count as independent.

    Its held-out set is its only set: what it chooses was never checked against data.
    """
    hessian: Double = np.kron(np.eye(positions), white_hessian(producer, bias, relu=relu)).astype(np.float64)
    cross = weight @ hessian
    target = np.einsum("mn,mn->m", cross, weight)
    n = weight.shape[1]
    sample = Sample(
        MatrixHessian(hessian), cross, target, float(target.sum()), n, np.zeros(n), np.zeros(len(weight)), False
    )
    return LayerProblem(weight, Layout(positions, n // positions), sample, sample)
