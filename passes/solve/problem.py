"""One layer as a quadratic: what a solver is given, and what a solution is worth.

With inputs x of the *pruned* model and targets t of the *dense* one (t = W x_d + b, or whatever else the layer should
give), the error of weights Ŵ is a quadratic in the moments

    H = E[x xᵀ] [n, n],  G = E[t xᵀ] [m, n],  t² = E[t ∘ t] [m]:   e(Ŵ) = Σ t² − 2 tr(Ŵ Gᵀ) + tr(Ŵ H Ŵᵀ)

centred where a bias can be corrected, uncentred where not. Two such sets belong to a layer: one to fit, one held out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from prunec.diagnostics import PrunecError
from prunec.passes.solve.hessian import Hessian, MatrixHessian, RowHessian
from prunec.patterns import Layout

Double = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Sample:
    """Moments of one set of rows, centred or not; the means are those of the rows either way.

    `power` is E‖t‖², uncentred: what errors are relative to.
    """

    hessian: Hessian
    cross: Double
    target: Double
    power: float
    count: int
    mean: Double
    target_mean: Double
    is_centred: bool

    @classmethod
    def of_rows(cls, inputs: Array, targets: Array, *, centred: bool = False, as_rows: bool = False) -> Sample:
        """From rows x [R, n] and t [R, m]. `as_rows` keeps the rows instead of the matrix H (n too large for one).

        Raises PrunecError PC331 where there are none.
        """
        count = len(inputs)
        if not count:
            raise PrunecError("PC331", "a layer needs samples to fit and samples to hold out", hint="give more samples")
        mean = inputs.mean(axis=0, dtype=np.float64)
        target_mean = targets.mean(axis=0, dtype=np.float64)
        power = float(np.square(targets, dtype=np.float64).sum() / count)
        x = inputs - mean.astype(inputs.dtype) if centred else inputs
        t = targets.astype(np.float64) - (target_mean if centred else 0.0)
        cross = (t.T.astype(x.dtype) @ x).astype(np.float64) / count
        hessian: Hessian
        if as_rows:
            hessian = RowHessian(x)
        else:
            wide = x.astype(np.float64)
            hessian = MatrixHessian(wide.T @ wide / count)
        return cls(hessian, cross, np.square(t).mean(axis=0), power, count, mean, target_mean, centred)

    def error(self, weight: Double) -> float:
        """‖t − Ŵx‖²/‖t‖² of this set (the centred error where the moments are centred)."""
        found = self.target.sum() - 2 * np.vdot(self.cross, weight) + np.vdot(self.hessian.apply(weight), weight)
        return float(max(found, 0.0) / (self.power or 1.0))

    def bias(self, weight: Double) -> Double:
        """b' = E[t] − Ŵ E[x], the best constant for these weights (what centred moments assume)."""
        shifted: Double = self.target_mean - weight @ self.mean
        return shifted


@dataclass(frozen=True)
class LayerProblem:
    """Weights W₀ [m, n], how they lie, and what is known about the layer.

    Raises:
        PrunecError PC330: a weight or a moment is not finite.
    """

    weight: Double
    layout: Layout
    fit: Sample
    held_out: Sample

    def __post_init__(self) -> None:
        m, n = self.weight.shape
        assert n == self.layout.columns and self.fit.cross.shape == self.held_out.cross.shape == (m, n)
        assert self.fit.count and self.held_out.count
        if not np.isfinite(self.weight).all():
            raise PrunecError("PC330", "a weight is not finite", hint="look at the model in ONNX Runtime")
        for sample in (self.fit, self.held_out):
            if not (np.isfinite(sample.cross).all() and np.isfinite(sample.hessian.diagonal()).all()):
                hint = "look at the calibration data and at the model in ONNX Runtime: it overflows or divides by zero"
                raise PrunecError("PC330", "the activations are not finite", hint=hint)

    def rows(self, index: npt.NDArray[np.int64]) -> LayerProblem:
        """The same problem for some of the outputs (they share H)."""

        def part(sample: Sample) -> Sample:
            target = sample.target[index]
            power = sample.power * float(target.sum() / (sample.target.sum() or 1.0))
            mean = sample.target_mean[index]
            return replace(sample, cross=sample.cross[index], target=target, power=power, target_mean=mean)

        return LayerProblem(self.weight[index], self.layout, part(self.fit), part(self.held_out))

    def permuted(self, order: npt.NDArray[np.int64]) -> LayerProblem:
        """The same problem with its input channels in another order (all kernel positions alike)."""
        columns = (np.arange(self.layout.positions)[:, None] * self.layout.channels + order).ravel()

        def part(sample: Sample) -> Sample:
            hessian, cross = sample.hessian.permuted(columns), sample.cross[:, columns]
            return replace(sample, hessian=hessian, cross=cross, mean=sample.mean[columns])

        return LayerProblem(self.weight[:, columns], self.layout, part(self.fit), part(self.held_out))

    @classmethod
    def of_rows(
        cls,
        weight: Double,
        fit: tuple[Array, Array],
        held_out: tuple[Array, Array],
        layout: Layout | None = None,
        *,
        centred: bool = False,
        as_rows: bool = False,
    ) -> LayerProblem:
        """From (inputs, targets) as rows; see `Sample.of_rows`."""
        samples = [Sample.of_rows(*part, centred=centred, as_rows=as_rows) for part in (fit, held_out)]
        return cls(weight.astype(np.float64), layout or Layout(1, weight.shape[1]), *samples)
