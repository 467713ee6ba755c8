"""The table of trainings with labels: a small network and made-up images in the place of fashion-net's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunec.models.fashion_net.data import Images

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
training = pytest.importorskip("benchmarks.training")
subject = pytest.importorskip("benchmarks.training_subject")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]


class Small(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Conv2d(1, 16, 3, 4, bias=False), torch.nn.BatchNorm2d(16)
        self.second, self.head = torch.nn.Conv2d(16, 16, 3), torch.nn.Linear(16, 10)

    def forward(self, image: Any) -> Any:
        x = torch.relu(self.second(torch.relu(self.norm(self.first(image)))))
        return self.head(x.mean((2, 3)))


def small() -> Any:
    torch.manual_seed(3)
    return Small()


def images(split: str) -> Images:
    """Whose class is where they are bright: learnt in a few steps."""
    count, random = (512, np.random.default_rng(0)) if split == "train" else (500, np.random.default_rng(1))
    labels = random.integers(0, 10, count)
    pixels = random.standard_normal((count, 1, 28, 28)).astype(np.float32) / 4
    for image, label in zip(pixels, labels, strict=True):
        image[:, 5 * (label // 5) + 6 : 5 * (label // 5) + 14, 2 + 5 * (label % 5) : 7 + 5 * (label % 5)] += 2
    return Images(pixels, labels)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "load", images)
    monkeypatch.setattr(subject, "pretrained", small)


def table(*arguments: str) -> dict[tuple[str, str], Any]:
    options = ["--epochs", "2", "--threads", "1", *arguments]
    found: list[Any] = []
    honest = training.line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "line", lambda row: (found.append(row), honest(row))[1])
        training.main(options)
    return {(row.case, row.method): row for row in found}


def test_rows_are_kept_and_counted_from_the_dense_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--cases", "--keep", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "rows.md")]
    found = table(*arguments)
    (dense,) = found.values()
    assert dense.macs == dense.weights == 1 and dense.start == dense.dense
    assert dense.drop == pytest.approx(100 * (dense.dense - dense.value)) and 0 <= dense.value <= 1
    assert (tmp_path / "rows.md").read_text(encoding="utf-8").count("\n") == 3
    monkeypatch.setattr(training, "Subject", None)  # nothing is computed twice
    assert table(*arguments) == found


@pytest.mark.slow
def test_schedules_and_cuts() -> None:
    methods = ("gates", "gmp", "imp", "one-shot", "scratch")
    found = table("--cases", "unstructured@0.75", "flops@0.5", "--methods", *methods, "--epochs", "4")
    dense = found["dense", "dense"]
    one_shot, gmp, imp, scratch = (found["unstructured@0.75", name] for name in ("one-shot", "gmp", "imp", "scratch"))
    assert gmp.weights == imp.weights == one_shot.weights == scratch.weights < 0.65
    assert gmp.start == imp.start == dense.start  # no zeros at first
    cut, learnt, anew = (found["flops@0.5", name] for name in ("one-shot", "gates", "scratch"))
    assert 0.25 < learnt.macs <= 0.5 and 0.1 < learnt.weights < 0.75 and learnt.start == dense.start
    assert cut.macs == anew.macs <= 0.5 and cut.weights == anew.weights < 0.75


def test_soft_masks_are_for_single_weights() -> None:
    found = set(training.wanted(["flops@0.5", "block:4x1@0.5", "2:4", "unstructured@0.5"], None))
    assert {case for case, method in found if method == "pdp"} == {"2:4", "unstructured@0.5"}
    assert {method for case, method in found if case == "flops@0.5"} == {*training.OF_CHANNELS}
