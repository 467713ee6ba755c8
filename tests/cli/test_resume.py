"""`compile` again after Ctrl-C: it says where it goes on, and writes the package that it would have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunec.passes.sparsify import Sparsifier
from tests.cli.helpers import files, prunec

PATTERN = ("compile", "model.onnx", "--pattern", "2:4", "--include", "*conv*", "--no-measure", "--samples", "40",
           "--solver", "fast")  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PRUNEC_CACHE_MB", "100")
    return tmp_path / "cache" / "solved"


def test_an_interrupted_compile_goes_on(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prunec(*PATTERN, "--no-cache", "-o", "whole", cwd=folder)
    assert whole.code == 0 and not cache.exists(), whole.err
    solve = Sparsifier.solve

    def interrupted(self: Sparsifier, *arguments: Any) -> Any:
        if self.results:
            raise KeyboardInterrupt
        return solve(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Sparsifier, "solve", interrupted)
        stopped = prunec(*PATTERN, "-o", "out", cwd=folder)
    assert stopped.code == 130 and not (folder / "out").exists()
    assert "note: layers solved so far are kept: the same command goes on from there" in stopped.err
    done = prunec(*PATTERN, "-o", "out", "--json", cwd=folder)
    assert done.code == 0 and "layers were solved before" in done.err and "come from the cache" in done.err
    assert files(folder / "out") == files(folder / "whole")
    again = prunec(*PATTERN, "-o", "again", cwd=folder)
    assert "note: all 4 layers were solved before" in again.err
    assert files(folder / "again") == files(folder / "whole")


def test_a_damaged_cache_is_a_warning_and_the_same_package(folder: Path, cache: Path) -> None:
    budget = ("compile", "model.onnx", "--flops", "0.6", "--no-measure", "--samples", "40")
    assert prunec(*budget, "-o", "one", cwd=folder).code == 0
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    done = prunec(*budget, "-o", "two", "--json", cwd=folder)
    assert done.code == 0 and {warning["code"] for warning in done.json["warnings"]} == {"PC323", "PC616"}
    one, two = files(folder / "one"), files(folder / "two")
    for name in ("model.onnx", "plan.json", "verification.json"):
        assert one[name] == two[name]
    three = prunec(*budget, "-o", "three", "--json", cwd=folder)
    assert {warning["code"] for warning in three.json["warnings"]} == {"PC323"}


def test_no_cache_keeps_nothing(folder: Path, cache: Path) -> None:
    for command in ("plan", "compile"):
        done = prunec(command, "model.onnx", "--flops", "0.6", "--samples", "40", "--no-cache", cwd=folder)
        assert done.code == 0 and not cache.exists()
