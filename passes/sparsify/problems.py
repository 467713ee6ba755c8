"""A layer under the sequential runner as one `LayerProblem` per group of channels.

Rows are patches of the pruned model's input (convolutions unfolded with their padding, stride and dilation) and what
the dense model gives there; the held-out batches make the second set of moments. Up to `MATRIX_UP_TO` inputs an output
these are full float64 moments; beyond, the rows themselves are kept, `ROWS_ELEMENTS` of them, and H is never formed.
"""

from __future__ import annotations

import numpy as np

from prunec.diagnostics import PrunecError
from prunec.passes.compensate.fit import Fit, not_finite
from prunec.passes.solve import LayerProblem, Sample
from prunec.passes.solve.hessian import MatrixHessian
from prunec.passes.sparsify.views import MATRIX_UP_TO
from prunec.patterns import Layout
from prunec.statistics.moments import Moments

ROWS_ELEMENTS = 1 << 26
"""Elements of the float32 rows that stand in for a larger H (256 MiB)."""
MOST_ROWS = 4096
"""Of those rows: the spectrum of their products with each other takes half a minute at this size."""
ROWS_PER_UNKNOWN, MOMENT_WORK = 64, 2e11
"""Rows to fit with: a mask is chosen from them as well, so more than a refit needs, as far as n²·rows stays payable."""
JOINED_ROWS = 1024
"""Rows of one product: each product costs a pass over H."""
NARROW_FROM = 128
"""Unknowns from which such products run in the rows' own precision; what they lose is below what a solver sees."""
HELD_OUT_SHARE = 0.25
"""Held-out rows beside rows to fit with: what a fifth of the data is to the rest."""


def problems(
    fit: Fit, rows_per_unknown: int = ROWS_PER_UNKNOWN, *, shifts: bool | None = None
) -> tuple[list[LayerProblem], tuple[str, ...]]:
    """One problem per group, and what is to be said about how they were made. `fit.rows` becomes the rows used.

    `shifts`: whether a bias will be corrected (where the layer can have one); by default what the options say.

    Raises:
        PrunecError PC330: the activations are not finite; PC227: a grouped layer is too wide.
    """
    groups, _, positions, channels = fit.start.shape
    layout, runner = Layout(positions, channels), fit.pairs.runner
    affordable = min(rows_per_unknown * fit.unknowns, int(MOMENT_WORK / fit.unknowns**2 / groups))
    wanted = max(fit.wanted(), affordable)
    notes: tuple[str, ...] = ()
    centred = _corrects_biases(fit) if shifts is None else shifts and fit.layer.can_shift
    if fit.unknowns <= MATRIX_UP_TO:
        sets = [
            _moments(fit, batches, int(np.ceil(wanted * share)), centred=centred)
            for batches, share in ((runner.fit, 1.0), (runner.held_out, HELD_OUT_SHARE))
        ]
    elif groups > 1:
        raise PrunecError("PC227", f"{fit.unknowns} inputs in each of {groups} groups", where=fit.layer.name)
    else:
        most = max(min(ROWS_ELEMENTS // fit.unknowns, MOST_ROWS), 64)
        sets = [
            [_rows(fit, batches, rows, centred=centred)]
            for batches, rows in ((runner.fit, most), (runner.held_out, max(most // 4, 16)))
        ]
        notes = (f"{fit.unknowns} inputs an output: H from {sets[0][0].count} rows, never formed",)
    fit.rows = sets[0][0].count
    flat = fit.start.reshape(groups, fit.outputs, fit.unknowns).astype(np.float64)
    found = [LayerProblem(weight, layout, *samples) for weight, *samples in zip(flat, *sets, strict=True)]
    return found, notes


def _moments(fit: Fit, batches: range, wanted: int, *, centred: bool) -> list[Sample]:
    moments = Moments(fit.groups, fit.unknowns, fit.outputs)
    for z, t in fit.joined(wanted, batches, JOINED_ROWS):
        if fit.unknowns < NARROW_FROM:
            z, t = z.astype(np.float64, copy=False), t.astype(np.float64, copy=False)
        moments.add(z, t)
    if not moments.is_finite():
        raise not_finite(fit.layer)
    return samples_of(moments, fit.bias.reshape(fit.groups, fit.outputs), centred=centred)


def samples_of(moments: Moments, bias: np.ndarray, *, centred: bool) -> list[Sample]:
    """One sample per group. `bias` [g, m] is what the targets contain beside W x; taken off where it has to stay."""
    hessians, crosses = (moments.covariance(), moments.cross_covariance()) if centred else moments.uncentred()
    spread = moments.target / max(moments.count, 1)
    squares = spread + np.square(moments.target_mean)
    without_bias = moments.target_mean - bias
    if not centred:
        crosses = crosses - (moments.target_mean - without_bias)[:, :, None] * moments.mean[:, None, :]
    return [
        Sample(
            hessian=MatrixHessian(hessians[i]),
            cross=crosses[i],
            target=spread[i] if centred else spread[i] + np.square(without_bias[i]),
            power=float(squares[i].sum()),
            count=moments.count,
            mean=moments.mean[i],
            target_mean=moments.target_mean[i],
            is_centred=centred,
        )
        for i in range(len(hessians))
    ]


def _rows(fit: Fit, batches: range, wanted: int, *, centred: bool) -> Sample:
    z, t = fit.gathered(wanted, batches)
    if not np.isfinite(z).all() or not np.isfinite(t).all():
        raise not_finite(fit.layer)
    return Sample.of_rows(z, t if centred else t - fit.bias, centred=centred, as_rows=True)


def _corrects_biases(fit: Fit) -> bool:
    """Centred moments are right only where the bias will be corrected; elsewhere the weights have to give the means."""
    return fit.layer.can_shift and fit.options.method != "none"
