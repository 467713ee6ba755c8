"""An environment per tool that stands beside prunec: a venv in prunec's cache, made once, whole or not at all.

Its name holds the hash of the Python and the requirements, so that another version is another environment. What an
interrupted run left is removed and made again; the mark is written last.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from prunec.cache import cache_root

MARK = ".complete"
INSTALL_LIMIT_S = 3600


class NoEnvironment(Exception):
    """A tool cannot be installed here; the text says why and stands in the table."""


def python_of(
    name: str, requirements: Sequence[str], say: Callable[[str], None], *, versions: Sequence[str] = ()
) -> Path:
    """The interpreter of the environment of tool `name`, made first where there is none.

    `versions` of Python that the tool runs on, as in ("3.11", "3.10"); empty: this one's.

    Raises:
        NoEnvironment: there is no such Python, or pip could not install the requirements.
    """
    base = _base(name, versions)
    folder = environment_folder(name, requirements, base)
    python = folder / "bin" / "python"
    if not (folder / MARK).is_file():
        say(f"making an environment for {name} in {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _checked([base, "-m", "venv", str(folder)])
        _checked([str(python), "-m", "pip", "install", "--quiet", *requirements])
        (folder / MARK).touch()
    return python


def environment_folder(name: str, requirements: Sequence[str], base: str = sys.executable) -> Path:
    text = "\n".join([sys.version if base == sys.executable else base, *requirements])
    return cache_root() / "peers" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _base(name: str, versions: Sequence[str]) -> str:
    """This Python where it will do, else the first on the path that is one of `versions`."""
    if not versions or f"{sys.version_info.major}.{sys.version_info.minor}" in versions:
        return sys.executable
    for version in versions:
        found = shutil.which(f"python{version}")
        if found is not None and subprocess.run([found, "-V"], capture_output=True, check=False).returncode == 0:
            return found
    raise NoEnvironment(f"{name} needs Python {' or '.join(versions)}, and there is none here")


def _checked(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NoEnvironment(f"its environment was not ready after {INSTALL_LIMIT_S} s") from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.startswith("ERROR")]
        raise NoEnvironment(f"its environment cannot be made: {lines[0] if lines else done.stderr[-200:]}")
