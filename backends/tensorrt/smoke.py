"""TensorRT-RTX as a smoke test: does its parser take the graph, and its builder make something of it, without a GPU?

It is another product with the same parser and the same strong typing. It says nothing about sparsity or speed. It
runs in a process of its own, since a native library that fails can take the process with it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from prunec.verify.records import SmokeRecord

TIMEOUT_S = 600


def smoke(folder: Path, python: str | None = None) -> SmokeRecord | None:
    """Of a package's folder; None where TensorRT-RTX is not installed. `python`: an interpreter that has it."""
    if python is None and importlib.util.find_spec("tensorrt_rtx") is None:
        return None
    command = [python or sys.executable, str(folder / "build.py"), "--smoke", "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        return SmokeRecord.model_validate(json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError):
        said = (done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"])[-1]
        return SmokeRecord(tool="tensorrt-rtx", architectures=(), passed=False, errors=(said[:500],))
