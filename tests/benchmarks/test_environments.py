"""Environments of other tools: made once, again after an interruption, and refused with a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.environments import NoEnvironment, environment_folder, python_of

FAKE = ("fake==1.0",)


def test_an_environment_is_made_once_and_again_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PRUNEC_CACHE", str(tmp_path))
    commands: list[list[str]] = []
    monkeypatch.setattr(environments, "_checked", commands.append)
    with pytest.raises(FileNotFoundError):  # nothing made the folder that the mark goes to: an interruption
        python_of("fake", FAKE, lambda _: None)
    monkeypatch.setattr(environments, "_checked", lambda c: (commands.append(c), _made()))
    python = python_of("fake", FAKE, lambda _: None)
    assert python == python_of("fake", FAKE, lambda _: None) == environment_folder("fake", FAKE) / "bin" / "python"
    assert [c[2] for c in commands] == ["venv", "pip", "venv", "pip"]
    assert environment_folder("fake", ("fake==1.1",)) != environment_folder("fake", FAKE)


def _made() -> None:
    environment_folder("fake", FAKE).mkdir(parents=True, exist_ok=True)


def test_an_environment_that_cannot_be_made_says_why() -> None:
    with pytest.raises(NoEnvironment, match=r"cannot be made: ERROR"):
        environments._checked([sys.executable, "-c", "import sys; sys.exit('ERROR: no such package')"])


def test_a_tool_that_needs_another_python_looks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert environments._base("fake", ()) == environments._base("fake", ("3.1", own)) == sys.executable
    with pytest.raises(NoEnvironment, match=r"fake needs Python 2\.9 or 3\.1, and there is none here"):
        environments._base("fake", ("2.9", "3.1"))
    for version, code in (("2.9", 1), ("3.1", 0)):  # a name on the path that runs nothing is none
        other = tmp_path / f"python{version}"
        other.write_text(f"#!/bin/sh\nexit {code}\n")
        other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environments._base("fake", ("2.9", "3.1")) == str(tmp_path / "python3.1")
