"""The scripts of a package, on their own: what they ask of TensorRT, in both dialects, and how they refuse."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prunec.backends.tensorrt.package import BUILD_SH, SCRIPTS, spec_of
from prunec.backends.tensorrt.scripts import build as scripted
from prunec.backends.tensorrt.scripts.benchmark import l2_relative, load_vectors, max_relative, ratio, time_arms
from prunec.backends.tensorrt.scripts.build import ARMS, BuildError, build, build_arms, cache_name
from prunec.backends.tensorrt.writing import render, vectors, write_scripts
from tests.tensorrt import fake_tensorrt
from tests.tensorrt.test_environment import GPU
from tests.tensorrt.test_sparse_log import NEW_NONE, OLD

SHAPES = {"x": ((1, 3), (4, 3), (8, 3))}
HERE = Path(scripted.__file__).parent


def test_one_build_asks_for_everything_that_sparse_kernels_need(tmp_path: Path) -> None:
    trt = fake_tensorrt.make(log="(Sparsity) Chose 1 layer(s) using sparse tactics")
    cache = tmp_path / "timing.cache"
    built = build(trt, tmp_path / "model.onnx", SHAPES, sparse=True, timing_cache=cache)
    (config,) = trt.done.configs
    assert config.flags == ["sparse"] and config.profiling_verbosity == "detailed"
    assert config.builder_optimization_level >= 3
    assert config.profiles[0].shapes == {"x": SHAPES["x"]}
    assert config.cache is not None and config.cache[1] is False and cache.read_bytes() == b"+"
    assert trt.done.creations == [1 << 1]
    assert built.plan == b"plan" and "[I] [TRT] (Sparsity) Chose 1" in built.log and "spgemm" in built.layers


def test_tensorrt_eleven_has_no_flag_for_strong_types(tmp_path: Path) -> None:
    trt = fake_tensorrt.make(strongly_typed=False)
    build(trt, tmp_path / "model.onnx", SHAPES, sparse=False)
    assert trt.done.creations == [0] and trt.done.configs[0].flags == []


def test_all_errors_of_the_parser_are_reported(tmp_path: Path) -> None:
    trt = fake_tensorrt.make(errors=("node a: no plugin", "node b: types differ"))
    with pytest.raises(BuildError) as found:
        build(trt, tmp_path / "model.onnx", SHAPES, sparse=True)
    assert found.value.problems == ("node a: no plugin", "node b: types differ")


def test_a_build_that_gives_nothing_says_what_the_builder_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="the end"):
        build(fake_tensorrt.make(builds=False), tmp_path / "model.onnx", SHAPES, sparse=True)


def test_dynamic_inputs_without_a_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no range of shapes for x"):
        build(fake_tensorrt.make(), tmp_path / "model.onnx", {}, sparse=True)


def test_three_arms_and_one_timing_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = fake_tensorrt.make()
    monkeypatch.setattr(scripted, "find_gpu", lambda: GPU)
    monkeypatch.setattr(scripted, "load_tensorrt", lambda: trt)
    (tmp_path / "shapes.json").write_text(json.dumps(SHAPES))
    build_arms(tmp_path)
    assert trt.done.files == ["dense.onnx", "model.onnx", "model.onnx"]
    assert [config.flags for config in trt.done.configs] == [[], [], ["sparse"]]
    assert cache_name(trt, GPU) == "timing-10.13.0-NVIDIA-A100-sm80.cache"
    assert {p.name for p in tmp_path.iterdir()} >= {cache_name(trt, GPU), *(f"{arm}.engine" for arm in ARMS)}


@pytest.mark.parametrize("script", ["build.py", "benchmark.py"])
def test_copies_refuse_on_their_own_where_there_is_no_gpu(script: str, tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is an NVIDIA driver here")
    for name in SCRIPTS:
        write_scripts(tmp_path, [f"tensorrt.scripts.{name}"])
        assert "prunec" not in (tmp_path / f"{name}.py").read_text().split('"""', 2)[2], name
    (tmp_path / "sparsity.json").write_text(json.dumps({"planned": [], "tolerance": 0.03}))
    (tmp_path / "vectors.npz").write_bytes(vectors({"x": np.zeros(2)}, {"y": np.zeros(2)}))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2 and "needs an NVIDIA GPU" in done.stderr and "Traceback" not in done.stderr


def test_a_smoke_test_without_tensorrt_rtx_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # importing it fails
    (tmp_path / "shapes.json").write_text("{}")
    assert scripted.main(["--smoke", "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "pip install tensorrt-rtx-cu13" in said and "no GPU" in said


TRTEXEC = """\
#!/bin/sh
if [ "$1" = --help ]; then echo "&&&& RUNNING TensorRT.trtexec [TensorRT {version}]"; echo "{options}"; exit 0; fi
echo "$@" >> calls
for a in "$@"; do case "$a" in --exportLayerInfo=*) echo '{{"Layers": []}}' > "${{a#--exportLayerInfo=}}";; esac; done
cat log
"""


@pytest.mark.parametrize(
    ("version", "options", "typed"), [("v101303", "--stronglyTyped Create a strongly typed network", True),
                                      ("v110400", "--sparsity=spec", False)]
)  # fmt: skip
@pytest.mark.parametrize(("log", "code", "said"), [(OLD, 0, "TensorRT runs 1 of 3"), (NEW_NONE, 1, "kept dense")])
def test_build_sh_speaks_both_dialects(
    version: str, options: str, typed: bool, log: str, code: int, said: str, tmp_path: Path
) -> None:
    rows = [("x y", (1, 3), (4, 3), (8, 3))]
    (tmp_path / "build.sh").write_text(render(BUILD_SH, dynamic=rows, level=4, spec=spec_of(rows)))
    (tmp_path / "trtexec").write_text(TRTEXEC.format(version=version, options=options))
    (tmp_path / "trtexec").chmod(0o755)
    (tmp_path / "log").write_text(log)
    (tmp_path / "sparsity.json").write_text(json.dumps({"planned": ["conv1"]}))
    shutil.copy(HERE / "sparse_log.py", tmp_path)
    environment = {**os.environ, "TRTEXEC": "./trtexec"}
    done = subprocess.run(
        ["bash", "build.sh"], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("--sparsity=")[1].split()[0] for call in calls] == ["disable", "disable", "enable"]
    for call in calls:
        assert ("--stronglyTyped" in call) == typed and "--fp16" not in call and "--verbose" in call
        assert "--minShapes=x y:1x3 --optShapes=x y:4x3 --maxShapes=x y:8x3" in call
        assert f"--timingCacheFile=timing-TensorRT{version}-" in call and "--profilingVerbosity=detailed" in call


def test_names_with_colons_stand_in_quotes() -> None:
    rows = [("input:0", (1, 3), (2, 3), (4, 3)), ("b", (1,), (1,), (1,))]
    assert shlex.split(spec_of(rows)(1)) == ["'input:0':2x3,b:1"]


def test_build_sh_refuses_a_version_that_knows_no_types(tmp_path: Path) -> None:
    (tmp_path / "build.sh").write_text(render(BUILD_SH, dynamic=[], level=4, spec=spec_of([])))
    (tmp_path / "trtexec").write_text(TRTEXEC.replace("{version}", "v8601").replace("{options}", "--fp16"))
    (tmp_path / "trtexec").chmod(0o755)
    environment = {**os.environ, "TRTEXEC": "./trtexec"}
    done = subprocess.run(["bash", "build.sh"], cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.returncode == 2 and b"TensorRTv8601, and 10.0 is the oldest" in done.stderr
    assert not (tmp_path / "calls").exists()


def test_build_sh_without_trtexec(tmp_path: Path) -> None:
    (tmp_path / "build.sh").write_text(render(BUILD_SH, dynamic=[], level=4, spec=spec_of([])))
    environment = {**os.environ, "TRTEXEC": str(tmp_path / "nothing")}
    done = subprocess.run(["bash", "build.sh"], cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.returncode == 2 and b"trtexec is not here" in done.stderr


def test_test_vectors_read_back_and_have_no_times(tmp_path: Path) -> None:
    inputs, outputs = {"a/b:0": np.arange(6, dtype=np.int64).reshape(2, 3)}, {"y": np.float32([1.5])}
    data = vectors(inputs, outputs)
    assert data == vectors(inputs, outputs)
    (tmp_path / "v.npz").write_bytes(data)
    found = load_vectors(tmp_path / "v.npz")
    assert np.array_equal(found[0]["a/b:0"], inputs["a/b:0"]) and np.array_equal(found[1]["y"], outputs["y"])


def test_errors_against_the_vectors() -> None:
    expected = {"y": np.float32([1, -4])}
    assert max_relative(expected, {"y": np.float16([1, -3])}) == pytest.approx(0.25)
    assert l2_relative({"y": np.float32([3, -4])}, {"y": np.float16([3, -3])}) == pytest.approx(0.2)
    for wrong in ([1], [1, np.nan]):
        assert l2_relative(expected, {"y": np.float16(wrong)}) == float("inf")
    assert max_relative(expected, {"y": np.float16([1])}) == float("inf")


class Sleeper:
    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def run(self) -> None:
        if not self.order or self.order[-1] != self.name:
            self.order.append(self.name)


def test_arms_are_timed_in_turn_and_back() -> None:
    order: list[str] = []
    medians = time_arms({name: Sleeper(name, order) for name in "abc"}, rounds=4)
    assert "".join(order) == "abcabcbabcba" or "".join(order).endswith("abcbabcba")
    assert {len(times) for times in medians.values()} == {4}
    assert ratio([2.0] * 8, [1.0] * 8) == {"median": 2.0, "ci95": [2.0, 2.0]}
