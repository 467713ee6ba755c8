"""verification.json has the keys of the contract, and nothing where nothing was checked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from prunec.verify.records import (
    CompensationRecord,
    ExactnessRecord,
    LoweringRecord,
    QualityRecord,
    SparsityRecord,
    VerificationRecord,
)

EXACT = ExactnessRecord(class_a_max_rel=1e-7, groups_checked=3, passed=True)
NO = LoweringRecord(max_rel=1.0, tolerance=1e-5, passed=False)


def test_the_keys_are_those_of_the_contract() -> None:
    record = VerificationRecord(
        exactness=EXACT,
        lowering=NO,
        quality=QualityRecord(metric="cosine", dense=1.0, pruned=0.9, drop=0.1, data="synthetic"),
        sparsity=SparsityRecord(requested=0.5, realised_params=0.5, realised_flops=0.4),
        compensation=(CompensationRecord(layer="conv1", method="least-squares", error_before=0.3, error_after=0.1),),
    )
    document = record.to_json()
    assert {name: set(part) for name, part in document.items() if name != "compensation"} == {
        "exactness": {"class_a_max_rel", "groups_checked", "passed"},
        "lowering": {"max_rel", "tolerance", "passed"},
        "quality": {"metric", "dense", "pruned", "drop", "data"},
        "sparsity": {"requested", "realised_params", "realised_flops"},
    }
    assert VerificationRecord.from_json(document) == record


def test_absent_is_absent() -> None:
    assert VerificationRecord().to_json() == {}
    assert VerificationRecord(exactness=EXACT).to_json().keys() == {"exactness"}


def test_passed_needs_a_check_and_no_failure() -> None:
    assert not VerificationRecord().passed
    assert VerificationRecord(exactness=EXACT).passed
    assert not VerificationRecord(exactness=EXACT, lowering=NO).passed


def test_nan_is_no_result() -> None:
    with pytest.raises(ValidationError):
        LoweringRecord(max_rel=float("nan"), tolerance=1e-5, passed=True)
