"""An environment per peer: a venv in prunec's cache, made once, whole or not at all.

Its name holds the hash of the Python and the requirements, so that another version is another environment. What an
interrupted run left is removed and made again; the mark is written last.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.catalogue import Peer
from prunec.cache import cache_root

MARK = ".complete"
INSTALL_LIMIT_S = 3600


class PeerFailed(Exception):
    """A peer did not give a model; the text says why and stands in the table."""


def python_of(peer: Peer, say: Callable[[str], None]) -> Path:
    """The interpreter of the peer's environment, made first where there is none.

    Raises:
        PeerFailed: pip could not install the requirements.
    """
    folder = environment_folder(peer)
    python = folder / "bin" / "python"
    if not (folder / MARK).is_file():
        say(f"making an environment for {peer.name} {peer.version} in {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _checked([sys.executable, "-m", "venv", str(folder)])
        _checked([str(python), "-m", "pip", "install", "--quiet", *peer.requirements])
        (folder / MARK).touch()
    return python


def environment_folder(peer: Peer) -> Path:
    text = "\n".join([sys.version, *peer.requirements])
    return cache_root() / "peers" / f"{peer.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _checked(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"its environment was not ready after {INSTALL_LIMIT_S} s") from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.startswith("ERROR")]
        raise PeerFailed(f"its environment cannot be made: {lines[0] if lines else done.stderr[-200:]}")
