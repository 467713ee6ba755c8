"""The C compiler for other machines: ziglang's clang, which pip installs with the C libraries of them all."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from prunec.diagnostics import PrunecError


def zig() -> list[str]:
    """The command.

    Raises:
        PrunecError PC453: it is not installed.
    """
    if importlib.util.find_spec("ziglang") is None:
        message = "there is no compiler for other machines than this one"
        raise PrunecError("PC453", message, where="--target", hint="pip install 'prunec[cross]'")
    return [sys.executable, "-m", "ziglang"]


def compile_c(arguments: Sequence[str], work: Path) -> None:
    """Run it in `work`.

    Raises:
        PrunecError PC453: no compiler, or it fails.
    """
    done = subprocess.run([*zig(), *arguments], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.strip().splitlines()
        message = f"the C compiler failed: {(errors or ['no message'])[0]}"
        raise PrunecError("PC453", message, where="ziglang", hint="pip install --upgrade ziglang")
