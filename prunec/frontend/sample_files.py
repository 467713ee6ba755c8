"""Samples from files: one .npz (or .npy), or a folder of them, read in natural order (x2 before x10), one at a time.

Never unpickles: an object array is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prunec.diagnostics import PrunecError

SUFFIXES = (".npz", ".npy")


class FileSource:
    """The items of a file or a folder: (where, dict of arrays or one array)."""

    def __init__(self, path: Path) -> None:
        self.files = _files(path)

    def items(self) -> Iterator[tuple[str, object]]:
        for file in self.files:
            yield str(file), _read(file)

    def fingerprint(self, used: int) -> str:
        """sha256 over names and contents of the first `used` files."""
        digest = hashlib.sha256()
        for file in self.files[:used]:
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted((f for f in path.iterdir() if f.suffix in SUFFIXES and f.is_file()), key=_natural)
    if not files:
        raise PrunecError(
            "PC307",
            "no .npz or .npy files in the folder",
            where=str(path),
            hint="put one file per sample or batch there",
        )
    return files


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _read(file: Path) -> object:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # numpy, zipfile and zlib fail in many ways on a damaged file
        raise PrunecError(
            "PC302",
            f"cannot be read as numpy data: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}",
            where=str(file),
            hint="write it with numpy.savez(file, input=array); object arrays are refused",
        ) from error
