"""Time of a cut model as a share of the dense one's, learnt from whole models cut in several groups at once.

A layer on its own is not what a layer costs among its neighbours: the runtime fuses, reorders and pads. So whole models
are timed, and two least squares with coefficients that are not negative share their times out among the layers:

    kinds    t = c + Σ_kinds (a_k · MACs + b_k · MACs at widths padded to the vector) + d · values written
    layers   t = c + Σ_layers s_l · t_l + rest       with t_l the layer's part above, s_l ≥ 0 pulled towards 1

How hard s is pulled is what left-out models prefer; they may prefer the first fit. No coefficient is negative and every
term grows with every width, so a narrower model is never predicted to be slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir
from scipy.optimize import nnls

from prunec.graph.cost import mac_products
from prunec.graph.rules.base import attribute

PADDING = 16
"""Widths of ONNX Runtime's blocks with AVX-512, in floats."""
PULLS = (1.0, 0.1, 0.01)
"""How much a layer that is twice as slow as its kind counts, against an error as large as that layer."""
FOLDS = 5


class LayerCosts(Protocol):
    """`plan.cost_model.CostModel`, or what has its figures for more than classes of channels."""

    def layer_macs(self, alive: np.ndarray, multiple: int = 1, /) -> np.ndarray: ...

    def layer_elements(self, alive: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Fit:
    """What a fit says about times that it has not seen, from models left out in turn: shares of the dense time."""

    predicted: np.ndarray
    measured: np.ndarray

    @property
    def error(self) -> float:
        """Median relative error."""
        return float(np.median(np.abs(self.predicted / self.measured - 1)))

    @property
    def rank_correlation(self) -> float:
        """Spearman's."""
        one, other = (np.argsort(np.argsort(values)) for values in (self.predicted, self.measured))
        return float(np.corrcoef(one, other)[0, 1]) if len(self.measured) > 2 else 1.0


class LatencyModel:
    """Fitted to `shares` [n], measured times over the dense time, of the models with the classes `alive` [n, classes].

    `weights` [n]: how much each counts.
    """

    def __init__(
        self,
        model: ir.Model,
        costs: LayerCosts,
        alive: Sequence[np.ndarray],
        shares: Sequence[float],
        weights: Sequence[float],
    ) -> None:
        self._costs = costs
        kinds = _kinds(model)
        self._layers = np.flatnonzero(kinds >= 0)
        self._kinds = kinds[self._layers]
        rows = np.stack([self._features(one) for one in alive])
        self._scale = np.maximum(rows.max(axis=0), 1e-300)
        rows = rows / self._scale
        found, weight = np.asarray(shares, np.float64), np.sqrt(np.asarray(weights, np.float64))
        self._fit(rows, found, weight)

    def share(self, alive: np.ndarray) -> float:
        """Predicted time over the dense time."""
        return float(self._features(alive) / self._scale @ self._coefficients)

    # -- features: [layers × (MACs, padded MACs), values, 1] ----------------------------------------------------------
    def _features(self, alive: np.ndarray) -> np.ndarray:
        plain, padded = (self._costs.layer_macs(alive, multiple)[self._layers] for multiple in (1, PADDING))
        return np.concatenate([plain, padded, [self._costs.layer_elements(alive).sum(), 1.0]])

    def _fit(self, rows: np.ndarray, found: np.ndarray, weight: np.ndarray) -> None:
        folds = np.arange(len(found)) % FOLDS
        tried: list[tuple[float, float | None, np.ndarray]] = []
        for pull in (None, *PULLS):
            guess = np.empty(len(found))
            for fold in range(FOLDS):
                seen = folds != fold
                own = self._solve(rows[seen], found[seen], weight[seen], pull)
                guess[~seen] = rows[~seen] @ own
            tried.append((float(((weight * (guess / found - 1)) ** 2).sum()), pull, guess))
        _, pull, guess = min(tried, key=lambda one: one[0])
        self.fit = Fit(guess, found)
        self._coefficients = self._solve(rows, found, weight, pull)

    def _solve(self, rows: np.ndarray, found: np.ndarray, weight: np.ndarray, pull: float | None) -> np.ndarray:
        """Coefficients of the features. Errors are relative to the time, so that fast models count like slow ones."""
        kinds = self._kinds
        count, number = len(kinds), int(kinds.max(initial=-1)) + 1
        by_kind = np.zeros((rows.shape[1], 2 * number + 2))  # in true units a kind has one rate
        sizes = self._scale[: 2 * count].reshape(2, count)
        for part in range(2):
            of_kind = np.array([sizes[part][kinds == kind].max() for kind in range(number)])
            by_kind[part * count + np.arange(count), part * number + kinds] = sizes[part] / of_kind[kinds]
        by_kind[-2:, -2:] = np.eye(2)
        row_weight = weight / found
        shared, _ = nnls((rows @ by_kind) * row_weight[:, None], found * row_weight)
        first = by_kind @ shared
        if pull is None:
            return np.asarray(first)
        parts = rows[:, :count] * first[:count] + rows[:, count : 2 * count] * first[count : 2 * count]
        rest = rows[:, -2:] * first[-2:]
        table = np.concatenate([parts, rest], axis=1)
        size = np.sqrt(pull * len(found)) * table.max(axis=0)
        system = np.concatenate([table * row_weight[:, None], np.diag(size)])
        scales, _ = nnls(system, np.concatenate([found * row_weight, size]))
        return np.concatenate([first[:count] * scales[:count], first[count : 2 * count] * scales[:count],
                               first[-2:] * scales[count:]])  # fmt: skip


def _kinds(model: ir.Model) -> np.ndarray:
    """A number per node for operators of one kind with one rate, −1 for those that are not products: int64 [nodes]."""
    known: dict[tuple[str, bool, bool], int] = {}
    found = []
    for node in model.graph:
        if not mac_products(node):
            found.append(-1)
            continue
        shape = node.inputs[1].shape if len(node.inputs) > 1 and node.inputs[1] is not None else None
        is_point = shape is not None and len(shape) > 2 and all(length == 1 for length in shape[2:])
        found.append(known.setdefault((node.op_type, int(attribute(node, "group", 1)) > 1, is_point), len(known)))
    return np.array(found, np.int64)
