"""crepe-tiny: the smallest CREPE pitch tracker; see `prunec.models.crepe` for the network, the data and the metric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prunec.models import crepe
from prunec.models.crepe import calibration
from prunec.models.fetch import Progress
from prunec.models.runner import Batch, Runner

__all__ = ["build", "calibration", "metric", "test_inputs"]

DEFAULT_SAMPLES = 800


def build(folder: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    return crepe.build_crepe("tiny", folder / "crepe-tiny.onnx", cache=cache, progress=progress)


def test_inputs(samples: int, seed: int) -> Iterator[Batch]:
    return crepe.test_inputs(samples, seed)


def metric(run: Runner, *, samples: int | None = None) -> dict[str, float]:
    return crepe.pitch_metric(run, samples or DEFAULT_SAMPLES)
