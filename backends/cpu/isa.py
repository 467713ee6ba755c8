"""Instruction sets: one row each, with what the kernels and the loader have to know about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from prunec.diagnostics import PrunecError

Int8 = Literal["x86", "wasm", "arm64"]
_BYTES = {"float32": 4, "int32": 4, "int64": 8, "uint8": 1, "int8": 1}


@dataclass(frozen=True)
class Isa:
    """`mcpu`, `triple` and `attributes` for LLVM; registers of `vector_bytes` bytes.

    `flags` as in /proc/cpuinfo, all of them needed to run; WebAssembly has no use for them.
    `loads_ahead`: its compiler loads what a loop reads before it computes, so that all of it needs registers too.
    `int8`: whose code int8 kernels are made of (`kernels/dot.py`); None: there are none. `has_dot`: an instruction adds
    the products of four bytes each to 32-bit sums.
    """

    name: str
    mcpu: str
    vector_bytes: int
    registers: int
    flags: tuple[str, ...]
    triple: str = "x86_64-unknown-linux-gnu"
    attributes: tuple[str, ...] = ()
    has_threads: bool = True
    loads_ahead: bool = False
    int8: Int8 | None = None
    has_dot: bool = False

    def lanes(self, dtype: str) -> int:
        """Elements in one register."""
        return self.vector_bytes // _BYTES[dtype]


AVX2 = Isa("x86-avx2", "haswell", 32, 16, ("avx", "avx2", "fma", "f16c", "bmi1", "bmi2"), int8="x86")
AVX512 = Isa(
    "x86-avx512",
    "skylake-avx512",
    64,
    32,
    (*AVX2.flags, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    int8="x86",
)
ISAS: dict[str, Isa] = {isa.name: isa for isa in (AVX512, AVX2)}
"""What code is generated for and can run in this process, the best first."""
AVX512_VNNI = replace(
    AVX512, name="x86-avx512-vnni", mcpu="cascadelake", flags=(*AVX512.flags, "avx512_vnni"), has_dot=True
)
AVX_VNNI = replace(AVX2, name="x86-avx-vnni", mcpu="alderlake", flags=(*AVX2.flags, "avx_vnni"), has_dot=True)
X86_INT8: dict[str, Isa] = {isa.name: isa for isa in (AVX512_VNNI, AVX_VNNI, AVX512, AVX2)}
"""What int8 kernels are generated for, the best first: floating point gains nothing from the first two."""
WASM = Isa(
    "wasm", "generic", 16, 15, (), "wasm32-unknown-unknown-wasm", ("+simd128", "+bulk-memory"), has_threads=False,
    loads_ahead=True, int8="wasm",
)  # fmt: skip
"""Registers are those of x86-64, of which V8 keeps one for itself."""
RELAXED_WASM = replace(WASM, name="wasm-relaxed", attributes=(*WASM.attributes, "+relaxed-simd"), has_dot=True)
ARM64 = Isa("arm64", "generic", 16, 32, (), "aarch64-unknown-linux-gnu", ("+neon",))
"""Every 64-bit ARM processor: single precision gains nothing from what later ones added."""
ARM64_DOT = replace(
    ARM64, name="arm64-dotprod", attributes=("+neon", "+dotprod"), flags=("asimddp",), int8="arm64", has_dot=True
)
"""Armv8.2-A with dot products, as phones and boards have them since 2018 (Cortex-A55, A75 and newer)."""


def cpu_flags() -> frozenset[str]:
    """Flags of this machine's first processor; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    lines = text.split("\n\n", 1)[0].splitlines()
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return frozenset(found.split())


def int8_weight_bits() -> int:
    """7 on x86 processors without VNNI, whose multiply-adds of uint8 and int8 saturate; else 8."""
    flags = cpu_flags()
    return 7 if "avx2" in flags and not flags & {"avx512_vnni", "avx_vnni"} else 8


def host_isa(flags: frozenset[str] | None = None) -> Isa:
    """The best instruction set that this machine has.

    Raises:
        PrunecError PC451: it has none of them.
    """
    return _best(ISAS, cpu_flags() if flags is None else flags)


def int8_isa(flags: frozenset[str] | None = None) -> Isa:
    """The best instruction set for int8 that this machine has. Raises PrunecError PC451: it has none of them."""
    return _best(X86_INT8, cpu_flags() if flags is None else flags)


def _best(isas: dict[str, Isa], have: frozenset[str]) -> Isa:
    for isa in isas.values():
        if have.issuperset(isa.flags):
            return isa
    missing = sorted(set(AVX2.flags) - have)
    raise PrunecError(
        "PC451",
        f"this machine has no instruction set that kernels are generated for: it lacks {', '.join(missing)}",
        where="--target cpu",
        hint=f"generated are {', '.join(ISAS)}; --target onnx runs everywhere",
    )


def check_isa(isa: Isa, flags: frozenset[str] | None = None) -> None:
    """Raise PrunecError PC451 where this machine cannot run code for `isa`."""
    missing = sorted(set(isa.flags) - (cpu_flags() if flags is None else flags))
    if missing:
        hint = "run it on a machine that has them, or compile with --target cpu here"
        raise PrunecError("PC451", f"made for {isa.name}, and this machine lacks {', '.join(missing)}", hint=hint)
