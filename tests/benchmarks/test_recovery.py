"""What a row of `benchmarks.recovery` is asked for, and what stands beside it."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the [torch] extra")

from benchmarks import recovery, rivals


def one_shot(model: str, case: str) -> recovery.Row:
    return recovery.Row(
        model=model, case=case, method="one-shot", minutes=0, processor_minutes=0, samples=64, rounds=1, steps=0,
        metric="agree", dense=1.0, value=0.3, error=0.5, kept="",
    )  # fmt: skip


def test_a_method_may_have_minutes_of_its_own() -> None:
    assert recovery.method_and_minutes("full:6.5") == ("full", [6.5])
    assert recovery.method_and_minutes("bias") == ("bias", [])
    for wrong in ("fulll", "full:much"):
        with pytest.raises(ValueError, match=r"fulll|much"):
            recovery.method_and_minutes(wrong)


def test_the_best_rival_stands_beside_the_one_shot_row() -> None:
    (row,) = recovery.beside(one_shot("minilm-l6", "2:4"))
    assert (row.method, row.dense, row.value) == ("SparseGPT (onnxsim), 51% of MACs left", 0.215, 0.176)
    assert (row.model, row.case, row.samples) == ("minilm-l6", "2:4", 0)
    assert recovery.beside(one_shot("minilm-l6", "flops@0.5")) == []


def test_every_rival_is_one_of_a_case_that_is_run() -> None:
    assert all(case in recovery.CASES and 0 <= own.value <= own.dense <= 1 for (_, case), own in rivals.BEST.items())
