"""Whether a shared library is all there: the loader maps what was cut short, and the process dies on a missing page."""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
"""An ELF file of 64 bits, little-endian (System V ABI, chapter 4)."""


def is_cut_short(path: Path) -> bool:
    """Whether the file ends before its table of sections does, which the linker writes last. False for other files."""
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if head[:6] != b"\x7fELF\x02\x01":
        return False
    if len(head) < _HEADER.size:
        return True
    fields = _HEADER.unpack(head)
    sections, entry_size, entries = fields[6], fields[11], fields[12]
    return bool(path.stat().st_size < sections + entry_size * entries)
