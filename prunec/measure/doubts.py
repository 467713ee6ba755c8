"""What speaks against a measurement: warnings, not errors, as the interval already carries the noise."""

from __future__ import annotations

from prunec.diagnostics import Diagnostic
from prunec.measure.results import Measurements

_BUSY = 0.5  # runnable processes per CPU before we started


def measurement_warnings(result: Measurements) -> list[Diagnostic]:
    """PC520 the machine was busy, PC521 the workers were not pinned, PC522 fewer blocks than asked for."""
    protocol, machine = result.protocol, result.machine
    warnings = []
    if protocol.load_average_1min is not None and protocol.load_average_1min > _BUSY * machine.logical_cpus:
        message = f"the machine was busy: load average {protocol.load_average_1min:g} on {machine.logical_cpus} CPUs"
        warnings.append(Diagnostic("PC520", message, hint="measure again when it is quiet; the interval will narrow"))
    if protocol.pinned_cpus is None:
        message = f"this system cannot pin processes to CPUs ({machine.os})"
        warnings.append(Diagnostic("PC521", message, hint="close other programs while measuring"))
    if protocol.blocks_requested is not None:
        message = f"{protocol.blocks} blocks fitted the budget, not {protocol.blocks_requested}"
        warnings.append(Diagnostic("PC522", message, hint="give more time, or a smaller batch"))
    return warnings
