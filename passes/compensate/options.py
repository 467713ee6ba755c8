"""What compensation can be told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import onnx_ir as ir

from prunec.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunec.passes.compensate.pairs import Pairs
    from prunec.passes.compensate.recurrent_sides import Sides
    from prunec.statistics.collect import CalibrationData

Method = Literal["none", "bias", "lsq", "auto"]
Progress = Callable[[int, int, str], None]
"""(layers done, layers in all, name of the layer)."""


@dataclass(frozen=True)
class Options:
    """`method`: which candidates compete: the sliced weights only, a corrected bias, least squares, or all.

    `dampings`: λ of the ridge towards the sliced weights, relative to diag(H). `residual`: where a layer is added to
    an earlier value, also correct that value's error. `patch_limit`: most unknowns per output channel that are solved
    exactly; larger kernels share one channel map over all their positions. `rows_per_unknown`, `min_rows`, `max_rows`:
    how many output positions a fit sees. `gate`: keep the result only if the model's own held-out outputs improve.
    `ram_bytes`: activations kept in memory before they go to a temporary folder in `folder` (default: the system's);
    None: a quarter of the bytes of the model's weights, and 16 MiB at least.
    """

    method: Method = "auto"
    dampings: tuple[float, ...] = (1e-6, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    residual: bool = True
    patch_limit: int = 2304
    rows_per_unknown: int = 16
    min_rows: int = 4096
    max_rows: int = 32768
    gate: bool = True
    seed: int = 0
    threads: int = 1
    ram_bytes: int | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class CompensationRecord:
    """What happened to one layer.

    Errors are ‖y_dense − y‖²/‖y_dense‖² behind its activation (and its addition, where `residual`) on held-out data;
    `rows` output positions were fitted; `damping` is 0 where none applies.
    """

    layer: str
    method: str
    damping: float
    rows: int
    error_none: float
    error_chosen: float
    residual: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compensated:
    """The refitted model; `error_none` and `error_chosen` are those of the model's outputs on held-out data."""

    model: ir.Model
    records: tuple[CompensationRecord, ...]
    warnings: tuple[Diagnostic, ...]
    error_none: float
    error_chosen: float


class LayerSolver(Protocol):
    """Takes some layers over from the least squares, because their weights have to meet more than an output."""

    def start(self, cut: ir.Model) -> None:
        """Called once, before anything else."""
        ...

    @property
    def baseline(self) -> ir.Model:
        """The cut model with the least that has to be done to those layers: what the result is compared with."""
        ...

    def mask_tables(self, model: ir.Model, calibration: CalibrationData, options: Options) -> list[CompensationRecord]:
        """Called second: write what is no layer of the runner, into `model` and `baseline`."""
        ...

    def takes(self, layer: str) -> bool: ...

    def describe(self, layer: str) -> str:
        """All that decides what a layer becomes, beside the data and the layers before it."""
        ...

    def result(self, layer: str) -> dict[str, Any] | None:
        """What is known about a layer that was solved, for JSON; None for layers that are not the solver's."""
        ...

    def restore(self, layer: str, result: dict[str, Any]) -> None:
        """Take `result` back instead of solving the layer; its weights are there already."""
        ...

    def solve(self, model: ir.Model, pairs: Pairs, options: Options, number: int) -> CompensationRecord:
        """Write the layer's new weights into `model`, and the least that has to be done into `baseline`."""
        ...

    def solve_recurrent(self, model: ir.Model, sides: Sides, options: Options, number: int) -> CompensationRecord:
        """The same for a recurrent layer."""
        ...
