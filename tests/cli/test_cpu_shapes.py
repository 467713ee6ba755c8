"""One package for several shapes of the inputs: it picks by them, shares its weights, and is measured for each."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")

import prunec as public
from prunec.backends.cpu.layout import EXAMPLE, HEADER, LIBRARY, WEIGHTS
from prunec.backends.cpu.link import c_compiler
from prunec.diagnostics import PrunecError
from prunec.measure.results import Measurements
from tests.backends.kernel_support import needs_x86
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual
from tests.cli.test_cpu import FAST, TARGET

pytestmark = needs_x86
FIRST, SECOND = (1, 3, 17, 15), (4, 3, 12, 12)
BOTH = ("--input-shape", "x=1,3,17,15", "--input-shape", "x=4,3,12,12")
PROGRAM = """
#include "prunec.h"
#include <stdio.h>
static float x[4 * 3 * 12 * 12], y[4 * 10];
int main(void) {
    const int64_t wanted[] = {4, 3, 12, 12}, other[] = {2, 3, 12, 12}, *first[] = {wanted}, *second[] = {other};
    int shape = prunec_find_shape(first);
    prunec_model *model;
    if (prunec_model_create("model.weights", 1, &model)) return 1;
    for (int i = 0; i < 4 * 3 * 12 * 12; i++) x[i] = (float)(i % 7) - 3;
    const void *in[] = {x};
    void *out[] = {y};
    int status = prunec_model_run_shape(model, shape, in, out);
    printf("%d %d %d %d %d", shape, prunec_find_shape(second), prunec_shape_count(), status,
           prunec_model_run_shape(model, 2, in, out));
    for (int i = 0; i < 40; i++) printf(" %.7g", y[i]);
    prunec_model_destroy(model);
    return 0;
}
"""


def free(model: ir.Model) -> ir.Model:
    """Batch, height and width are dynamic."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(["n", 3, "h", "w"] if len(value.shape or ()) == 4 else ["n", 10])
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shapes")
    ir.save(free(residual([1, 3, 17, 15], 32)), path / "model.onnx")
    done = prunec("compile", "model.onnx", *TARGET, *FAST, *BOTH, "-o", "out", "--json", cwd=path)
    assert done.code == 0, done.err
    return path


def inputs(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def test_run_picks_by_the_shape(folder: Path) -> None:
    compiled = public.load(folder / "out", runtime="prunec")
    onnx = public.load(folder / "out", runtime="onnxruntime")
    for shape in (FIRST, SECOND, FIRST):
        wanted, found = onnx.run(inputs(shape)), compiled.run(inputs(shape))
        for name, array in wanted.items():
            assert found[name].shape == array.shape
            assert 0 < np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
    with pytest.raises(PrunecError, match=r"PC614.*x is \(1, 3, 17, 15\) or \(4, 3, 12, 12\), not \(2, 3, 12, 12\)"):
        compiled.run(inputs((2, 3, 12, 12)))


def test_shapes_share_the_weights(folder: Path) -> None:
    one = ("--input-shape", "x=1,3,17,15")
    done = prunec("compile", "model.onnx", *TARGET, *FAST, *one, "--no-measure", "-o", "one", cwd=folder)
    assert done.code == 0, done.err
    both, alone = ((folder / name / "cpu" / WEIGHTS).stat().st_size for name in ("out", "one"))
    assert both < 1.5 * alone
    document = json.loads((folder / "out" / "cpu" / "parts.json").read_text())
    assert document["shapes"] == [{"x": list(FIRST)}, {"x": list(SECOND)}] and len(document["parts"]) == 1
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["inputs"][0]["shape"] == ["n", 3, "h", "w"]


def test_every_shape_is_measured_and_has_its_own_default(folder: Path) -> None:
    package = public.load(folder / "out")
    found = package.measurements
    assert found is not None and found.protocol.inputs["x"].shape == FIRST and found.shapes is not None
    (other,) = found.shapes
    assert other.inputs["x"].shape == SECOND and set(other.contenders) == {"pruned_onnxruntime", "prunec"}

    def runs(first: float, second: float) -> list[bool]:
        """Whether the compiled model runs, by shape, for speed-ups over ONNX Runtime."""
        document: Any = found.to_json()
        for place, median in ((document, first), (document["shapes"][0], second)):
            place["speedup"]["vs_pruned_onnxruntime"] = {"median": median, "ci95": [median - 0.1, median + 0.1]}
        changed = replace(package, measurements=Measurements.from_json(document))
        onnx = public.load(folder / "out", runtime="onnxruntime")
        pairs = ((changed.run(inputs(shape)), onnx.run(inputs(shape))) for shape in (FIRST, SECOND))
        return [not np.array_equal(*(next(iter(r.values())) for r in pair)) for pair in pairs]

    assert [runs(2, 2), runs(0.5, 2), runs(2, 0.5)] == [[True, True], [False, True], [True, False]]


@pytest.mark.slow
def test_verify_and_bench_take_every_shape(folder: Path) -> None:
    assert prunec("verify", "out", cwd=folder).code == 0
    bench = ("bench", "out", "--source", "model.onnx", "--blocks", "6", "--json")
    for options, shape in (((), FIRST), (("--input-shape", "x=4,3,12,12"), SECOND)):
        done = prunec(*bench, *options, cwd=folder)
        assert done.code == 0, done.err
        assert done.json["protocol"]["inputs"]["x"]["shape"] == list(shape)
        assert set(done.json["contenders"]) == {"dense_onnxruntime", "pruned_onnxruntime", "prunec", "prunec_dense"}


def test_c_programs_find_their_shape(folder: Path, tmp_path: Path) -> None:
    package = folder / "out" / "cpu"
    header = (package / HEADER).read_text()
    assert (
        "shape 1\n *   input 0: float32 x[4][3][12][12]" in header
        and "shape 0\n *   input 0: float32 x[1][3]" in header
    )
    (tmp_path / "program.c").write_text(PROGRAM)
    command = [*c_compiler(), "-std=c99", "-Wall", "-Werror", f"-I{package}", "program.c", str(package / LIBRARY)]
    done = subprocess.run(
        [*command, f"-Wl,-rpath,{package}", "-o", "program"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run([str(tmp_path / "program")], cwd=package, capture_output=True, text=True)
    numbers = done.stdout.split()
    assert numbers[:5] == ["1", "-1", "2", "0", "1"], (done.stdout, done.stderr)
    x = (np.arange(4 * 3 * 12 * 12) % 7 - 3).astype(np.float32).reshape(SECOND)
    (wanted,) = public.load(folder / "out", runtime="prunec").run({"x": x}).values()
    assert np.allclose([float(n) for n in numbers[5:]], wanted.reshape(-1), rtol=1e-5, atol=1e-6)
    assert (package / EXAMPLE).is_file()


def test_refusals(folder: Path, tmp_path: Path) -> None:
    refuses(prunec("compile", "model.onnx", "--sparsity", "0.5", *BOTH, cwd=folder), "PC016")
    refuses(prunec("inspect", "model.onnx", *BOTH, cwd=folder), "PC016")
    refuses(prunec("compile", "model.onnx", *TARGET, *BOTH, "--input-shape", "y=1", cwd=folder), "PC017")
    three = ("--input-shape", "y=1", "--input-shape", "y=2", "--input-shape", "y=3")
    refuses(prunec("compile", "model.onnx", *TARGET, *BOTH, *three, cwd=folder), "PC016")
    uneven = ("--input-shape", "x=1,3,9,9", "--input-shape", "x=1,3,9")
    refuses(prunec("compile", "model.onnx", *TARGET, *uneven, cwd=folder), "PC016")
    text = (
        '<ir_version: 9, opset_import: ["" : 17]> m (float[n, 16, 8] x) => (float[n, 16, 8] y)'
        "<float[8, 8] w = {" + ", ".join(["1"] * 64) + "}> { z = MatMul(x, w)  y = Det(z) }"
    )
    ir.save(
        ir.from_onnx_text(text.replace("float[n, 16, 8] y", "float[n] y").replace("16, 8]", "8, 8]")),
        tmp_path / "m.onnx",
    )
    shapes = ("--input-shape", "x=1,8,8", "--input-shape", "x=2,8,8")
    refuses(prunec("compile", "m.onnx", "--target", "cpu", "--sparsity", "0.5", *shapes, cwd=tmp_path), "PC460")
