"""What is built is what is in the folders, and all three ways to have prunec give the same packages.

The wheel and the editable install are made from a copy of the sources, in virtual environments that hold nothing else;
their dependencies come from the running environment through a .pth file, so no registry is asked.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAPPED = {"passes": "prunec/passes", "backends": "prunec/backends", "models": "prunec/models"}
FOLDERS = ("prunec", *MAPPED)
NOT_INSTALLED = {".md", ".pyc"}


def installed_name(path: Path) -> str:
    """Where a file of the repository lies in the wheel: passes/x.py is prunec/passes/x.py there."""
    first, *rest = path.parts
    return "/".join([MAPPED.get(first, first), *rest])


def source_files(root: Path) -> list[Path]:
    found = (path.relative_to(root) for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts and path.suffix not in NOT_INSTALLED)


def listed_packages(root: Path) -> list[str]:
    packages: list[str] = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    return packages


@pytest.fixture(scope="module")
def sources(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, so that no stale build folder takes part and none is left behind."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in FOLDERS:
        shutil.copytree(root / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (root / name).exists():
            shutil.copy(root / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("wheel-sources") / "prunec"
    shutil.copytree(sources, copy)
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(copy))
    (built,) = out.glob("prunec-*.whl")
    return built


@pytest.fixture(scope="module")
def wheel_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = bare_environment(tmp_path_factory.mktemp("wheel-environment"))
    pip("install", "--no-deps", "--no-index", str(wheel), python=python)
    return python


def pip(*arguments: str, python: Path | str = sys.executable) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def bare_environment(folder: Path) -> Path:
    """A virtual environment that sees the running one's packages, but not its prunec; returns its interpreter.

    A folder named in a .pth file is searched, the .pth files in it are not read, and an editable install is one.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def package_files(python: Path, packages: list[str], cwd: Path) -> dict[str, Path]:
    script = "import importlib, sys\nfor name in sys.argv[1:]: print(name, importlib.import_module(name).__file__)"
    done = subprocess.run([str(python), "-c", script, *packages], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: Path(file) for name, _, file in (line.partition(" ") for line in done.stdout.splitlines())}


def test_package_list_is_what_the_folders_hold(root: Path) -> None:
    folders = {path.parent for path in source_files(root) if path.suffix == ".py"}
    expected = [installed_name(folder).replace("/", ".") for folder in folders]
    listed = listed_packages(root)
    assert listed == sorted(listed), "keep the list in pyproject.toml sorted"
    assert sorted(set(expected) - set(listed)) == [], "add to [tool.setuptools] packages in pyproject.toml"
    assert sorted(set(listed) - set(expected)) == [], "remove from [tool.setuptools] packages in pyproject.toml"
    assert [folder for folder in folders if not (root / folder / "__init__.py").exists()] == []


def test_wheel_holds_every_file(root: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        assert "prunec = prunec.cli:main" in archive.read(metadata).decode()
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    assert names == {installed_name(path) for path in source_files(root)}, "see package-data in pyproject.toml"


def test_wheel_imports(root: Path, wheel_python: Path, tmp_path: Path) -> None:
    files = package_files(wheel_python, listed_packages(root), cwd=tmp_path)
    environment = wheel_python.parent.parent
    assert [name for name, file in files.items() if not file.is_relative_to(environment)] == []


def test_wheel_has_the_command(wheel_python: Path, tmp_path: Path) -> None:
    command = [str(wheel_python.parent / "prunec"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "compile" in done.stdout


def test_editable_install_imports(root: Path, sources: Path, tmp_path: Path) -> None:
    python = bare_environment(tmp_path / "venv")
    pip("install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", str(sources), python=python)
    files = package_files(python, listed_packages(root), cwd=tmp_path)
    assert [name for name, file in files.items() if not file.is_relative_to(sources)] == []
    assert files["prunec.passes"] == sources / "passes" / "__init__.py"


def test_source_checkout_imports(root: Path, sources: Path, tmp_path: Path) -> None:
    python = bare_environment(tmp_path / "venv")
    files = package_files(python, listed_packages(root), cwd=sources)
    assert [name for name, file in files.items() if not file.is_relative_to(sources)] == []
    assert files["prunec.models"] == sources / "models" / "__init__.py"


@pytest.mark.parametrize("folder", sorted(MAPPED))
def test_ruff_forbids_the_bare_name(folder: str, root: Path) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", "prunec/x.py", "-"]
    for line, allowed in (
        (f"import {folder}", False),
        (f"from {folder} import x", False),
        (f"import prunec.{folder}", True),
    ):
        done = subprocess.run(command, input=line + "\n", cwd=root, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is allowed, f"{line}: {done.stdout}{done.stderr}"


def tracked_files(root: Path) -> list[Path]:
    if not (root / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: there is no list of tracked files")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listing.split("\0") if name and (root / name).is_file()]


# Put together from pieces, so that this file does not match itself.
MACHINE_PATH = rb"(?<![\w.:/-])/(?:" + b"|".join([b"work", b"root", b"home", b"opt"]) + rb")/\w"
REGISTRY_HOST = rb"(?:py" + rb"pi\.org|python" + rb"hosted\.org|registry\.np" + rb"mjs\.org|deb\.deb" + rb"ian\.org)"


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["machine path", "registry host"])
def test_no_tracked_file_names_a_machine(pattern: bytes, root: Path) -> None:
    files = tracked_files(root)
    assert len(files) > 10
    found = [str(path.relative_to(root)) for path in files if re.search(pattern, path.read_bytes())]
    assert found == []


@pytest.mark.parametrize("line", ["see /{0}/main/x.py", '"/{0}/x"', "PYTHONPATH=/{0}/lib"])
def test_the_machine_path_pattern_finds_one(line: str) -> None:
    assert re.search(MACHINE_PATH, line.format("work").encode())
    assert not re.search(MACHINE_PATH, line.format("tmp").encode())
