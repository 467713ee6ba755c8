"""`import prunec` is cheap, and its functions are there whatever was imported before them.

Each script runs in a process of its own: what is tested is the state of a fresh interpreter. `prunec.api` is replaced
by functions that return their own name and arguments, so that only the look-up is under test.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import prunec

COLLIDING = ("plan", "recipes", "verify")

FAKE_API = """
import sys, types
api = types.ModuleType("prunec.api")
for name in ("plan", "recipes", "verify", "compile"):
    exec(f"def {name}(model, *, seed=0): return ({name!r}, model, seed)", api.__dict__)
sys.modules["prunec.api"] = api
"""


def run(script: str, root: Path) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_heavy(root: Path) -> None:
    heavy = {"jinja2", "networkx", "numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "rich", "scipy", "torch"}
    heavy |= {"tensorrt", "tvm", "typer"}
    loaded = run("import sys, prunec; print(*sorted({m.partition('.')[0] for m in sys.modules}))", root).split()
    assert "prunec" in loaded
    assert not heavy & set(loaded)


@pytest.mark.parametrize("name", COLLIDING)
@pytest.mark.parametrize(
    "imports",
    [
        "import prunec; f = prunec.{0}",
        "from prunec import {0} as f",
        "import prunec, prunec.{0}; f = prunec.{0}",
        "import prunec; f = prunec.{0}; import prunec.{0}; assert f is prunec.{0}",
        "import prunec.{0} as f",
        "import prunec.{0}, importlib; importlib.reload(prunec.{0}); f = prunec.{0}",
    ],
)
def test_name_is_function_and_package(name: str, imports: str, root: Path) -> None:
    use = "; print(f('m', seed=3)); import types; assert isinstance(f, types.ModuleType) and f.__path__"
    assert run(FAKE_API + imports.format(name) + use, root) == repr((name, "m", 3))


def test_submodules_import_after_the_function_was_used(root: Path, tmp_path: Path) -> None:
    (tmp_path / "extra.py").write_text("class Plan: pass\n")
    script = f"""
import prunec
assert prunec.plan("m") == ("plan", "m", 0)
prunec.plan.__path__.append({str(tmp_path)!r})
from prunec.plan.extra import Plan
import prunec.plan.extra as extra
assert extra.Plan is Plan is prunec.plan.extra.Plan
print(prunec.plan("n"))
"""
    assert run(FAKE_API + script, root) == "('plan', 'n', 0)"


def test_signature_is_the_functions(root: Path) -> None:
    assert (
        run(FAKE_API + "import inspect, prunec; print(inspect.signature(prunec.verify))", root) == "(model, *, seed=0)"
    )


def test_plain_functions_come_from_api(root: Path) -> None:
    assert run(FAKE_API + "import prunec; print(prunec.compile('m'))", root) == "('compile', 'm', 0)"


def test_a_module_with_a_functions_name_is_callable() -> None:
    modules = {module.name for module in pkgutil.iter_modules(prunec.__path__[:1])}
    clashes = sorted(modules & set(prunec.__all__))
    assert set(COLLIDING) <= set(clashes)
    assert [name for name in clashes if not callable(import_module(f"prunec.{name}"))] == []


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = prunec.no_such_name
    assert set(prunec.__all__) <= set(dir(prunec))
