"""Describe this machine: what a reader needs to judge a latency, and nothing that names the owner."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from prunec.measure.results import Machine

# The flags that decide which kernels a CPU can run (x86, then ARM), in the spelling of /proc/cpuinfo.
_ISA = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni"),
    *(
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_int8",
        "amx_bf16",
    ),
    *("asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16", "sme"),
)


def describe_machine(versions: Mapping[str, str] | None = None) -> Machine:
    """CPU, cores, instruction sets, memory, system and versions (`versions` beside Python's own)."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return Machine(
        cpu=info.get("model name") or platform.processor() or platform.machine() or "unknown",
        logical_cpus=os.cpu_count() or 1,
        cores=_physical_cores(),
        isa=tuple(flag for flag in _ISA if flag in flags),
        memory_gib=_memory_gib(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions={"python": platform.python_version(), **(versions or {})},
    )


def allowed_cpus() -> list[int]:
    """The CPUs this process may use, in the order in which to pin to them: one per core first, CPU 0's core last.

    The first core usually serves interrupts. Empty where the system has no affinity masks.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cpus = sorted(os.sched_getaffinity(0))
    cores: dict[tuple[int, ...], list[int]] = {}
    for cpu in cpus:
        cores.setdefault(_core_of(cpu), []).append(cpu)
    ranked = sorted(cores.values(), key=lambda siblings: (0 in siblings, siblings))
    depth = max(len(siblings) for siblings in ranked)
    return [siblings[level] for level in range(depth) for siblings in ranked if level < len(siblings)]


def load_average() -> float | None:
    """Runnable processes over the last minute: how busy the machine was before we started."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _core_of(cpu: int) -> tuple[int, ...]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return tuple(int((topology / part).read_text()) for part in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        return (cpu,)


def _physical_cores() -> int | None:
    if sys.platform != "linux":
        return None
    return len({_core_of(cpu) for cpu in range(os.cpu_count() or 1)})


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
