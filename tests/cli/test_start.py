"""The start of the command: fast, light, and with help for everything."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.helpers import ENVIRONMENT, process, prunec, refuses

COMMANDS = ("compile", "inspect", "explain", "plan", "verify", "bench", "targets", "recipes", "zoo")
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "scipy", "networkx", "pydantic", "jinja2", "torch")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from prunec.cli.run import run\n"
        "assert run(['--help']) == 0\n"
        "sys.stderr.write(' '.join(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stderr.split())


def test_help_is_fast(tmp_path: Path) -> None:
    """In CPU time: what else runs on the machine is not the command's fault."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process("--help", cwd=tmp_path).code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_help_lists_every_command_and_each_has_help(tmp_path: Path) -> None:
    text = prunec("--help", cwd=tmp_path).out
    assert [name for name in COMMANDS if f"  {name} " not in text] == []
    for name in COMMANDS:
        done = prunec(name, "--help", cwd=tmp_path)
        assert done.code == 0 and f"prunec {name}" in done.out and done.err == ""


def test_no_arguments_show_the_help(tmp_path: Path) -> None:
    done = prunec(cwd=tmp_path)
    assert done.code == 0 and "Commands:" in done.out


def test_version(tmp_path: Path) -> None:
    import prunec as package

    assert prunec("--version", cwd=tmp_path).out == f"prunec {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["inspect"],
        ["inspect", "model.onnx", "--nonsense"],
        ["inspect", "model.onnx", "--format", "svg"],
        ["compile", "model.onnx", "--flops", "much"],
        ["compile", "model.onnx", "--threads", "0"],
        ["zoo", "nonsense"],
    ],
)
def test_wrong_usage_is_an_error_like_any_other(arguments: list[str], folder: Path) -> None:
    refuses(prunec(*arguments, cwd=folder), "PC200")
    done = prunec(*arguments, "--json", cwd=folder)
    assert done.json["error"]["code"] == "PC200" and done.json["error"]["exit_code"] == 2


def test_a_bug_of_ours_shows_its_traceback(folder: Path) -> None:
    script = (
        "import prunec.graph.view as view, sys\n"
        "view.to_dot = lambda *a: 1 / 0\n"
        "sys.argv = ['prunec', 'inspect', 'model.onnx', '--format', 'dot']\n"
        "from prunec.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and done.stdout == ""


def test_a_full_disk_is_no_traceback(folder: Path) -> None:
    script = (
        "import errno, os, sys, prunec.api.inspection as inspection\n"
        "def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'scratch')\n"
        "inspection.describe = full\n"
        "sys.argv = ['prunec', 'inspect', 'model.onnx', '--json']\n"
        "from prunec.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "error[PC605]" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(folder: Path) -> None:
    script = f"{sys.executable} -m prunec recipes | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""
