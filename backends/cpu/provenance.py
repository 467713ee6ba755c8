"""What every measurement of kernels depends on, and so is part of what it is remembered by: machine and code."""

from __future__ import annotations

import hashlib
from functools import cache as once
from pathlib import Path

from prunec.measure.machine import describe_machine


@once
def processor() -> str:
    return describe_machine().cpu


@once
def sources(*more: str) -> str:
    """Hash of the kernels and of `more` files, relative to this one."""
    here = Path(__file__).parent
    files = [*sorted((here / "kernels").glob("*.py")), *(here / name for name in more)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
