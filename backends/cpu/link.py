"""Compile the run time and link everything into one shared library, with the system's C compiler or ziglang's."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from prunec.diagnostics import PrunecError

_RUNTIME = Path(__file__).parent / "runtime"
SOURCES = ("runtime.c", "routines.c", "threads.c", "cpu.c")
HEADERS = ("prunec.h", "program.h")
_VISIBLE = "{ global: prunec_*; local: *; };\n"
EXPORTS = "exports.map"
SHARED = ("-shared", "-s", f"-Wl,--version-script={EXPORTS}", "-Wl,--build-id=none", "-Wl,-z,noexecstack")
"""What makes a shared library, in a folder with `write_sources`, that exports nothing but its interface."""
_TARGET = "x86_64-linux-gnu.2.28"
"""Any Linux of the last years has this glibc or a newer one."""


def c_compiler() -> list[str]:
    """The command that compiles C for x86-64 Linux: the system's own, which is ready at once, else ziglang.

    Raises:
        PrunecError PC453: there is neither.
    """
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is not None and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", _TARGET]
    message = "there is no C compiler to link a package with"
    raise PrunecError("PC453", message, where="--target", hint="pip install ziglang")


def link(objects: Sequence[Path], program: str, library: Path, work: Path) -> None:
    """Write `library` from object files and the generated C file; `work` is an empty folder for what lies in between.

    Names in `work` are relative, and nothing that depends on the time goes in, so the same inputs give the same bytes.

    Raises:
        PrunecError PC453: the compiler fails.
    """
    write_sources(program, work)
    command = [
        *c_compiler(), "-std=gnu11", "-O2", "-fPIC", "-pthread", *SHARED, *SOURCES, "program.c",
        *(str(path) for path in objects), "-lm", "-o", "linked.so",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        message = f"the C compiler failed: {last}"
        raise PrunecError("PC453", message, where=command[0], hint="pip install ziglang, or update the C compiler")
    shutil.move(work / "linked.so", library)


def write_sources(program: str, work: Path) -> None:
    """The run time, the generated C file and the list of exports in the folder `work`."""
    for name in (*SOURCES, *HEADERS):
        shutil.copyfile(_RUNTIME / name, work / name)
    (work / "program.c").write_text(program, encoding="utf-8")
    (work / EXPORTS).write_text(_VISIBLE, encoding="utf-8")
