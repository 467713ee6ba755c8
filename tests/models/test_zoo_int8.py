"""Real models in generated int8 code against ONNX Runtime on the same QDQ graph."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

import prunec
import prunec.models as zoo
from tests.backends.kernel_support import needs_x86

pytestmark = [needs_x86, pytest.mark.slow]


@pytest.mark.parametrize("name", ["fashion-net", "crepe-tiny"])
def test_a_package_equals_its_graph_within_a_step(name: str, tmp_path: Path) -> None:
    found = zoo.get(name)
    done = prunec.compile(
        found.path, target="cpu", precision="int8", sparsity=0.5, calib=found.calib, samples=32, measure=False,
        include=["*"], solver="fast", output=tmp_path / "out",
    )  # fmt: skip
    assert done.verification is not None
    lowering = done.verification.lowering
    assert lowering is not None and lowering.max_rel <= 1 / 255
    assert not {"PC486", "PC456"} & {warning.code for warning in done.warnings}
