"""Compile the run time and link everything into one .wasm, with ziglang's clang."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from prunec.backends.cross.zig import compile_c

_HERE = Path(__file__).parent / "runtime"
_SHARED = Path(__file__).parents[1] / "cpu" / "runtime"
_SOURCES = (_HERE / "wasm.c", _SHARED / "routines.c")
_HEADERS = (_SHARED / "prunec.h", _SHARED / "program.h")
_FEATURES = ("-msimd128", "-mbulk-memory")
"""Of the run time, whatever the kernels use: ziglang builds its C library once for each set, which takes a minute."""
STACK_BYTES = 256 * 1024


def link(objects: Sequence[Path], sources: dict[str, str], embedded: Path | None, work: Path) -> Path:
    """The .wasm, in `work`, an empty folder beside for what lies in between. `sources`: generated C files by name.

    The same inputs give the same bytes: names are relative, and nothing that depends on the time goes in.

    Raises:
        PrunecError PC453: no compiler, or it fails.
    """
    for path in (*_SOURCES, *_HEADERS):
        shutil.copyfile(path, work / path.name)
    for name, text in sources.items():
        (work / name).write_text(text, encoding="utf-8")
    files = [path.name for path in _SOURCES] + [name for name in sources if name.endswith(".c")]
    if embedded is None:
        beside = ["-DWEIGHTS_BESIDE"]
    else:
        beside = []
        (work / "weights.s").write_text(_embedding(embedded), encoding="utf-8")
        files.append("weights.s")
    command = [
        "cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-std=gnu11", "-O2", "-s",
        *_FEATURES, *beside, *files,
        *(path.name for path in objects), f"-Wl,-z,stack-size={STACK_BYTES}", "-o", "linked.wasm",
    ]  # fmt: skip
    compile_c(command, work)
    return work / "linked.wasm"


def _embedding(weights: Path) -> str:
    size = weights.stat().st_size
    return (
        '\t.section .data.weights,"",@\n\t.globl stored\n\t.p2align 6\n\t.type stored,@object\nstored:\n'
        f'\t.incbin "{weights.name}"\n\t.size stored, {size}\n'
    )
