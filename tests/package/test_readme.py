"""README.txt: the snippet in it runs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from prunec.package.manifest import Manifest, SourceRecord, TensorRecord
from prunec.package.readme import render_readme
from tests.package.samples import write_package


def manifest(*inputs: TensorRecord) -> Manifest:
    return Manifest(
        source=SourceRecord(name="m.onnx", sha256="0"),
        target="x86-avx2",
        inputs=inputs,
        outputs=(TensorRecord(name="y", dtype="float32", shape=None),),
        plan_sha256="0",
        files={},
        tools={"prunec": "1.2.3"},
    )


def test_the_snippet_runs_as_it_stands(tmp_path: Path) -> None:
    out = write_package(tmp_path / "out")
    text = (out / "README.txt").read_text()
    snippet = textwrap.dedent(text[text.index("    import numpy") :])
    run = subprocess.run([sys.executable, "-c", snippet], cwd=out, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["(1,", "2)", "float32"]
    assert "input/x:0  float32 [batch, 4]" in text


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (TensorRecord(name="x", dtype="int64", shape=(2, "n", None)), "'x': np.zeros((2, 1, 1), dtype=np.int64),"),
        (TensorRecord(name="it's", dtype="float16", shape=()), '"it\'s": np.zeros((), dtype=np.float16),'),
        (TensorRecord(name="x", dtype="bfloat16", shape=(2,)), "'x': np.zeros((2,), dtype=ml_dtypes.bfloat16),"),
        (TensorRecord(name="x", dtype="string", shape=(2,)), "'x': np.full((2,), \"\", dtype=object),"),
    ],
)
def test_inputs_of_every_kind(record: TensorRecord, line: str) -> None:
    text = render_readme(manifest(record))
    assert line in text
    assert ("import ml_dtypes" in text) == (record.dtype == "bfloat16")
    assert "any shape" in text


def test_a_back_end_adds_how_to_run_its_artifact() -> None:
    text = render_readme(manifest(), target_usage="link libmodel.a\ncall run()")
    assert "Run it on x86-avx2\n  link libmodel.a\n  call run()\n" in text
    assert "Run it on" not in render_readme(manifest())
