"""Quality: the user's metric, agreement without one, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from prunec.diagnostics import GateError, PrunecError
from prunec.verify.lowering import check_lowering
from prunec.verify.quality import quality_by_agreement, quality_by_metric
from prunec.verify.user_metric import evaluate, load_metric

Arrays = dict[str, np.ndarray]
BATCHES = [{"x": batch} for batch in np.random.default_rng(0).standard_normal((3, 4, 5))]


def dense(feeds: Mapping[str, np.ndarray]) -> Arrays:
    return {"y": feeds["x"] * 1.0}


def shifted(feeds: Mapping[str, np.ndarray]) -> Arrays:
    return {"y": np.roll(feeds["x"], 1, axis=1)}


def test_a_model_agrees_with_itself() -> None:
    record = quality_by_agreement(dense, dense, BATCHES, data="synthetic")
    assert (record.metric, record.dense, record.pruned, record.drop) == ("top1_agreement", 1, 1, 0)
    assert record.data == "synthetic" and record.samples == 12
    assert record.others == {"cosine": pytest.approx(1), "relative_error": 0}


def test_a_model_that_moved_every_class_agrees_about_none() -> None:
    record = quality_by_agreement(dense, shifted, BATCHES, data="calibration")
    assert record.pruned == 0 and record.drop == 1 and record.data == "calibration"


def test_the_worst_output_is_reported() -> None:
    def both(feeds: Mapping[str, np.ndarray]) -> Arrays:
        return {"good": feeds["x"], "bad": feeds["x"]}

    def half(feeds: Mapping[str, np.ndarray]) -> Arrays:
        return {"good": feeds["x"], "bad": np.roll(feeds["x"], 1, axis=1)}

    record = quality_by_agreement(both, half, BATCHES, data="synthetic")
    assert record.metric == "bad.top1_agreement" and record.pruned == 0
    assert record.others is not None and record.others["good.top1_agreement"] == 1


def test_nan_where_there_was_none_is_a_no() -> None:
    with pytest.raises(GateError, match="PC502"):
        quality_by_agreement(dense, lambda feeds: {"y": feeds["x"] * np.nan}, BATCHES, data="synthetic")


def test_outputs_that_are_empty_say_nothing() -> None:
    def nothing(feeds: Mapping[str, np.ndarray]) -> Arrays:
        return {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}

    assert quality_by_agreement(nothing, nothing, BATCHES, data="synthetic") is None


def test_finding_something_where_there_was_nothing_is_disagreement() -> None:
    def none(feeds: Mapping[str, np.ndarray]) -> Arrays:
        return {"boxes": np.zeros((0, 4), np.float32), "scores": feeds["x"]}

    def one(feeds: Mapping[str, np.ndarray]) -> Arrays:
        return {"boxes": np.ones((1, 4), np.float32), "scores": feeds["x"]}

    record = quality_by_agreement(none, one, BATCHES, data="synthetic")
    assert record is not None and record.metric.startswith("boxes.") and record.pruned == 0


def mean_abs(run: object, samples: int = 3) -> dict[str, float]:
    assert callable(run)
    values = [float(np.abs(run(feeds)["y"]).mean()) for feeds in BATCHES[:samples]]
    return {"mean_abs": float(np.mean(values)), "batches": len(values)}


def test_a_metric_sees_both_models() -> None:
    record = quality_by_metric(
        mean_abs,
        evaluate(mean_abs, dense, samples=2),
        lambda feeds: {"y": feeds["x"] / 2},
        samples=2,
    )
    assert record.metric == "mean_abs" and record.data == "user" and record.samples == 2
    assert record.pruned == pytest.approx(record.dense / 2) and record.drop == pytest.approx(record.dense / 2)
    assert record.others == {"dense_batches": 2, "pruned_batches": 2}


def broken(run: object) -> float:
    raise KeyError("logits")


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (broken, "KeyError"),
        (lambda run: float("nan"), "nan"),
        (lambda run: "good", "str"),
        (lambda run: {}, "no numbers"),
        (lambda run: None, "NoneType"),
    ],
)
def test_a_metric_that_is_none(metric: object, says: str) -> None:
    assert callable(metric)
    with pytest.raises(PrunecError, match="PC351") as refusal:
        evaluate(metric, dense, samples=None)
    assert says in str(refusal.value) and refusal.value.exit_code == 2


@pytest.mark.parametrize(
    "spec", ["accuracy", ":f", "module:", "no_such_module_x:f", "my_metric:nothing", "my_metric:NUMBER", "bad_metric:f"]
)
def test_a_metric_that_cannot_be_found(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_metric.py").write_text("NUMBER = 3\n")
    (tmp_path / "bad_metric.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrunecError, match="PC350"):
        load_metric(spec)


def test_a_metric_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metric_here.py").write_text("def f(run):\n    return 0.5\n")
    monkeypatch.chdir(tmp_path)
    metric = load_metric("metric_here:f")
    record = quality_by_metric(metric, evaluate(metric, dense, samples=9), dense, samples=9)
    assert (record.metric, record.dense, record.drop) == ("f", 0.5, 0)


def test_lowering_is_checked_against_a_tolerance() -> None:
    near = check_lowering(dense, lambda feeds: {"y": feeds["x"] * (1 + 1e-6)}, BATCHES)
    assert near.passed and 0 < near.max_rel < 1e-5
    with pytest.raises(GateError, match="PC503"):
        check_lowering(dense, lambda feeds: {"y": feeds["x"] * 1.01}, BATCHES)
