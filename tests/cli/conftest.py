"""One small model per test, alone in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import small_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_model(tmp_path / "model.onnx")
    return tmp_path
