"""`--target wasm` from the command line: what a package holds, that it runs and refuses in V8 and wasmtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("wasmtime", reason="needs the [cross] extra")

import prunec as public
from prunec.backends.wasm.artifact import check_memory
from prunec.backends.wasm.engine import WasmModel
from prunec.diagnostics import PrunecError
from tests.cli.helpers import ENVIRONMENT, prunec, refuses
from tests.cli.networks import residual

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
TARGET = ("--target", "wasm", "--pattern", "block:8x1", "--sparsity", "0.75")
FAST = ("--samples", "10", "--solver", "fast", "--no-cache", "--no-compensate")


SMALL = ([1, 3, 9, 7], 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and `out`: its package with the weights beside the module."""
    path = tmp_path_factory.mktemp("wasm")
    ir.save(residual(*SMALL), path / "model.onnx")
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "out", "--no-measure", "--json", cwd=path)
    assert done.code == 0, done.err
    (path / "answer.json").write_text(done.out)
    return path


def document(path: Path) -> Any:
    return json.loads(path.read_text())


def javascript(package: Path, script: str) -> str:
    """What a script prints; `load` is the package's, and `code` catches the code of its errors."""
    text = f"""
        import {{ load }} from {json.dumps((package / "wasm" / "index.js").as_uri())};
        const code = async (f) => {{ try {{ await f(); return "none"; }} catch (e) {{ return e.code ?? String(e); }} }};
        {script}
    """
    command = ["node", "--input-type=module", "-e", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_package_is_checked(folder: Path) -> None:
    answer = document(folder / "answer.json")
    lowering = answer["verification"]["lowering"]
    assert lowering["passed"] and 0 < lowering["max_rel"] <= lowering["tolerance"] == 1e-5
    spec = document(folder / "out" / "wasm" / "model.json")
    files = {"index.js", "index.d.ts", "package.json", "model.js", "model.json", "model.wasm", "model.weights"}
    assert {name for name in answer["manifest"]["files"] if "/" in name} == {f"wasm/{name}" for name in files}
    package = document(folder / "out" / "wasm" / "package.json")
    assert set(package["files"]) == files - {"package.json"} and package["type"] == "module"
    assert spec["memory_bytes"] % 2**16 == 0 and 0 < spec["arena_bytes"] < spec["memory_bytes"]
    readme = (folder / "out" / "README.txt").read_text()
    assert "and model.weights beside it" in readme and f"{spec['arena_bytes'] / 2**20:.1f} MiB" in readme
    types = (folder / "out" / "wasm" / "index.d.ts").read_text()
    assert '"x": Float32Array; // [1, 3, 9, 7]' in types
    assert prunec("verify", "out", cwd=folder).code == 0


@needs_node
@pytest.mark.slow
def test_it_is_timed_in_node_and_wasmtime(folder: Path) -> None:
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "timed", "--json", cwd=folder)
    assert done.code == 0, done.err
    measured = document(folder / "timed" / "measurements.json")
    assert set(measured["contenders"]) == {"prunec", "prunec_dense"} and "v8" in measured["machine"]["versions"]
    assert set(measured["speedup"]) == {"vs_prunec_dense"}
    again = prunec("bench", "timed", "--source", "model.onnx", "--blocks", "6", "--json", cwd=folder)
    ends = ("", "_wasmtime")
    assert set(again.json["contenders"]) == {f"{name}{end}" for name in ("prunec", "prunec_dense") for end in ends}
    sparse = [layer for layer in measured["layers"] if layer["pattern"] == "block:8x1"]
    assert len(sparse) == 2
    for layer in sparse:
        assert layer["density"] == 0.25 and layer["dense_us"] > 0 and layer["sparse_us"] > 0
        assert "peak_share" not in layer


def test_python_runs_it_to_check_it(folder: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 9, 7)).astype(np.float32)
    package = public.load(folder / "out")
    assert package.default_runtime == "onnxruntime"
    found, wanted = (public.load(folder / "out", runtime=r).run({"x": x}) for r in ("prunec", "onnxruntime"))
    for name, array in wanted.items():
        assert 0 < np.abs(found[name] - array).max() <= 1e-5 * np.abs(array).max()
    for bad, code in (({"x": x[:, :2]}, "PC614"), ({"y": x}, "PC614"), ({"x": np.where(x > 2, np.nan, x)}, "PC621")):
        with pytest.raises(PrunecError, match=code):
            public.load(folder / "out", runtime="prunec").run(bad)


@needs_node
def test_the_module_in_javascript(folder: Path) -> None:
    """Numbers, types, no import, memory that never grows, and results that the next run leaves alone."""
    x = np.linspace(-1, 1, 3 * 9 * 7, dtype=np.float32)
    script = """
        import { readFile } from "node:fs/promises";
        const bytes = await readFile(new URL("MODULE"));
        const model = await load();
        const x = Float32Array.from({ length: 189 }, (_, i) => Math.fround(-1 + (2 * i) / 188));
        const first = model.run({ x });
        const held = Object.values(first)[0].slice();
        model.run({ x: x.map((v) => -v) });
        console.log(JSON.stringify({
          imports: WebAssembly.Module.imports(new WebAssembly.Module(bytes)).length,
          kept: Object.values(first)[0].every((v, i) => v === held[i]), y: [...held],
          memory: model.memoryBytes, inputs: model.inputs, steps: model.profile({ x }).length === model.steps.length,
        }));
    """
    module = (folder / "out" / "wasm" / "model.wasm").as_uri()
    found = json.loads(javascript(folder / "out", script.replace("MODULE", module)))
    assert found["imports"] == 0 and found["kept"] and found["steps"]
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 9, 7]}]
    (wanted,) = public.load(folder / "out", runtime="onnxruntime").run({"x": x.reshape(1, 3, 9, 7)}).values()
    assert np.abs(np.array(found["y"]) - wanted.ravel()).max() <= 1e-5 * np.abs(wanted).max()


@needs_node
def test_errors_in_javascript(folder: Path) -> None:
    script = """
        const model = await load();
        const x = new Float32Array(189);
        const instantiate = WebAssembly.instantiate, validate = WebAssembly.validate;
        const found = [
          await code(() => model.run({})), await code(() => model.run({ y: x })),
          await code(() => model.run({ x: [0] })), await code(() => model.run({ x: new Float32Array(188) })),
          await code(() => model.run({ x: x.map(() => NaN) })),
          await code(() => load("file:///nowhere/model.wasm")),
        ];
        WebAssembly.instantiate = async () => { throw new RangeError("out of memory"); };
        found.push(await code(load));
        WebAssembly.instantiate = instantiate;
        WebAssembly.validate = () => false;
        found.push(await code(load));
        WebAssembly.validate = validate;
        found.push(await code(() => model.run({ x })));
        console.log(found.join(" "));
    """
    found = javascript(folder / "out", script)
    assert found == "BAD_INPUT BAD_INPUT BAD_INPUT BAD_INPUT BAD_INPUT NOT_FOUND NO_MEMORY NO_SIMD none"


@needs_node
@pytest.mark.parametrize("damage", ["cut", "longer", "another", "module"])
def test_files_that_are_not_the_models(folder: Path, tmp_path: Path, damage: str) -> None:
    """Defined errors in V8 and in wasmtime; never a trap."""
    shutil.copytree(folder / "out" / "wasm", tmp_path / "wasm")
    weights, module = tmp_path / "wasm" / "model.weights", tmp_path / "wasm" / "model.wasm"
    data = weights.read_bytes()
    if damage == "module":
        module.write_bytes(module.read_bytes()[:-100])
    else:
        changed = {"cut": data[:-64], "longer": data + b"x", "another": data[:16] + bytes(32) + data[48:]}
        weights.write_bytes(changed[damage])
    assert javascript(tmp_path, "console.log(await code(load))") == (
        "BAD_MODULE" if damage == "module" else "BAD_WEIGHTS"
    )
    with pytest.raises(PrunecError, match="PC622"):
        WasmModel(tmp_path / "wasm")


def test_weights_inside_and_relaxed_instructions(folder: Path) -> None:
    done = prunec(
        "compile", "model.onnx", *TARGET, *FAST, "--weights", "embedded", "--relaxed-simd", "--no-measure", "-o", "one",
        "--json", cwd=folder,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert {w["code"] for w in done.json["warnings"]} >= {"PC466"}
    beside, one = (folder / out / "wasm" for out in ("out", "one"))
    assert not (one / "model.weights").exists()
    larger = (one / "model.wasm").stat().st_size - (beside / "model.wasm").stat().st_size
    assert larger > 0.9 * (beside / "model.weights").stat().st_size
    assert document(one / "model.json")["simd"] == "relaxed"
    assert "--weights embedded --relaxed-simd" in done.json["command"]


def test_the_same_compile_gives_the_same_bytes(folder: Path) -> None:
    done = prunec("compile", "model.onnx", *TARGET, *FAST, "-o", "again", "--no-measure", cwd=folder)
    assert done.code == 0, done.err
    hashes = document(folder / "out" / "manifest.json")["files"]
    assert document(folder / "again" / "manifest.json")["files"] == hashes


def test_refusals(folder: Path, tmp_path: Path) -> None:
    ir.save(residual(*SMALL, with_pool=True), tmp_path / "pool.onnx")
    model = folder / "model.onnx"
    done = prunec("compile", "pool.onnx", *TARGET, *FAST, cwd=tmp_path)
    refuses(done, "PC464")
    assert "LpPool (no generated code for this operator)" in done.err
    for code, *options in (
        ("PC440", "--threads", "2"), ("PC440", "--weights", "elsewhere"), ("PC440", "--precision", "fp16"),
        ("PC463", "--tune", "quick"), ("PC452", "--shape-range", "x=1x3x9x7:1x3x9x7:1x3x9x7"),
    ):  # fmt: skip
        refuses(prunec("compile", model, *TARGET, *FAST, *options, cwd=tmp_path), code)
    for option in (("--weights", "beside"), ("--relaxed-simd",)):
        for other in (("onnx", "--flops", "0.5"), ("cpu", "--sparsity", "0.5")):
            refuses(prunec("compile", model, "--target", *other, *option, cwd=tmp_path), "PC440")
    refuses(prunec("bench", folder / "out", "--threads", "2", cwd=tmp_path), "PC510")
    refuses(prunec("bench", folder / "out", "--input-shape", "x=1,3,8,8", cwd=tmp_path), "PC614")
    with pytest.raises(PrunecError, match="PC465"):
        check_memory(2**32)


def test_without_the_engine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wasmtime: refused, or made unchecked with --no-build, which says so."""
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wasmtime" else found(name))
    model = folder / "model.onnx"
    refuses(prunec("compile", model, *TARGET, *FAST, cwd=tmp_path), "PC455")
    done = prunec("compile", model, *TARGET, *FAST, "--no-build", "-o", tmp_path / "out", "--json", cwd=tmp_path)
    assert done.code == 0 and {w["code"] for w in done.json["warnings"]} >= {"PC457"}
    with pytest.raises(PrunecError, match="PC455"):
        WasmModel(tmp_path / "out" / "wasm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ziglang" else found(name))
    refuses(prunec("compile", model, *TARGET, *FAST, cwd=tmp_path), "PC453")


def test_without_the_generator(folder: Path) -> None:
    """Refused with what to install, as for other targets; what was compiled runs."""
    script = (
        "import importlib.util as u, sys; sys.modules['tvm'] = None; found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'tvm' else found(name, *rest)\n"
        "import numpy as np, prunec, prunec.backends.arm64.device, prunec.backends.arm64.emulated\n"
        "for target in ('wasm', 'arm64'):\n"
        "    try: prunec.compile('model.onnx', target=target, sparsity=0.5)\n"
        "    except prunec.PrunecError as refused: print(refused.diagnostic.code, refused.diagnostic.hint)\n"
        "model = prunec.load('out', runtime='prunec')\n"
        "print([array.shape for array in model.run({'x': np.zeros((1, 3, 9, 7), np.float32)}).values()])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *refused, shapes = done.stdout.splitlines()
    assert refused == ["PC455 pip install 'prunec[tvm,cross]'"] * 2 and "(1, " in shapes
