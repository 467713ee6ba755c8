"""--size-mb: bytes of the finished file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunec.api import planning
from prunec.api.compilation import compile
from prunec.api.gates import refusals
from prunec.diagnostics import PrunecError
from prunec.plan.budget import Budget
from tests.api.test_timing import model as model


def plan(model: Path, **options: Any) -> planning.Planned:
    return planning.plan(model, samples=8, cache=False, **options)


@pytest.mark.parametrize("scope", ["loss", "layer", "global"])
def test_the_file_is_as_small_as_asked_and_hardly_smaller(model: Path, tmp_path: Path, scope: str) -> None:
    wanted = model.stat().st_size / 1e6 * 0.6
    out = tmp_path / "out"
    found = compile(model, size_mb=wanted, scope=scope, samples=8, measure=False, cache=False, output=out)
    size = (out / "model.onnx").stat().st_size / 1e6
    assert 0.75 * wanted < size <= wanted
    assert found.verification is not None and found.verification.sparsity is not None
    assert found.verification.sparsity.requested is None
    assert f"--size-mb {wanted:g}" in found.command


def test_what_cannot_be_met_says_what_can(model: Path) -> None:
    with pytest.raises(PrunecError, match="PC207") as caught:
        plan(model, size_mb=0.001)
    nearest = float((caught.value.diagnostic.hint or "").split()[1])
    assert plan(model, size_mb=nearest).plan.budget.value == nearest


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"size_mb": 0.0}, "PC208"),
        ({"size_mb": 1.0, "params": 0.5}, "PC220"),
        ({"size_mb": 1.0, "structures": "depth,channels"}, "PC217"),
    ],
)
def test_refused(model: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(PrunecError, match=code):
        plan(model, **options)


def test_a_finished_file_that_is_larger_is_refused() -> None:
    budget = Budget.of("size-mb", 1)
    gates: dict[str, Any] = {"min_speedup": None, "max_drop": None, "budget": budget}
    assert refusals(None, None, bytes_after=1_000_000, **gates) == []
    for size in (1_000_001, None):
        (no,) = refusals(None, None, bytes_after=size, **gates)
        assert no.diagnostic.code == "PC531" and no.exit_code == 1
