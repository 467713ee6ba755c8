"""Pattern names, as the command line and plans have them."""

from __future__ import annotations

import re

from prunec.diagnostics import PrunecError
from prunec.patterns.base import Pattern
from prunec.patterns.block import Block, Kernel
from prunec.patterns.nm import NM
from prunec.patterns.vnm import COLUMNS, VNM

HELP = "2:4 (keep 2 of 4), N:M, block:4x1 (4 outputs × 1 input), block:RxC, vnm:64:2:8, kernel, unstructured"
MAX = 1024


def parse(text: str) -> Pattern:
    """The pattern of that name.

    Raises:
        PrunecError PC215: there is no such pattern, or its numbers make none.
    """
    if text == "unstructured":
        return Block(1, 1)
    if text == "kernel":
        return Kernel()
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        n, m = (int(part) for part in found.groups())
        if 0 < n < m <= MAX:
            return NM(n, m)
        raise _wrong(text, f"N:M keeps N of M, with 0 < N < M ≤ {MAX}")
    if found := re.fullmatch(r"block:(\d+)x(\d+)", text):
        r, c = (int(part) for part in found.groups())
        if 0 < r <= MAX and 0 < c <= MAX:
            return Block(r, c)
        raise _wrong(text, f"blocks have 1 to {MAX} outputs and inputs")
    if found := re.fullmatch(r"vnm:(\d+):(\d+):(\d+)", text):
        v, n, m = (int(part) for part in found.groups())
        if 0 < v <= MAX and 0 < n < COLUMNS <= m <= MAX:
            return VNM(v, n, m)
        raise _wrong(text, f"V:N:M keeps N of {COLUMNS} columns that V rows share, with N < {COLUMNS} ≤ M")
    raise _wrong(text, "there is no such pattern")


def _wrong(text: str, why: str) -> PrunecError:
    return PrunecError("PC215", f"{text!r}: {why}", where="--pattern", hint=f"there is auto, channel, {HELP}")
