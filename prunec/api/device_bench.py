"""`bench` for a package whose code runs on another machine: the command for the device, and what it printed there."""

from __future__ import annotations

from pathlib import Path

from prunec.api.opening import PathLike
from prunec.api.record import Result
from prunec.diagnostics import PrunecError
from prunec.measure.modelled import DeviceTimes, Elsewhere, Modelled
from prunec.package.errors import os_errors
from prunec.package.jsonfile import dumps
from prunec.package.load import Package, load_package
from prunec.package.manifest import MEASUREMENTS, REPORT
from prunec.report.device import with_device


class OnDevice(Result):
    """`command`: for the device, in the package's folder; `device`: what was read of it, beside what was modelled."""

    command: str
    device: DeviceTimes | None = None
    modelled: Modelled | None = None


def runs_elsewhere(package: PathLike) -> bool:
    """Whether its code is for another machine. PC61x: the package."""
    return load_package(Path(package)).libraries_path is not None


def bench_device(package: PathLike, *, device_csv: PathLike | None = None, threads: int = 1) -> OnDevice:
    """The command that times the package on the device; with `device_csv`, the file that it printed there.

    Its times go into the package's measurements.json and report.html, as measured on the device that the file names.

    Raises:
        PrunecError PC61x: the package; PC440: it has no runner; PC623: the file; PC60x: the package cannot be written.
    """
    opened = load_package(Path(package))
    if opened.libraries_path is None:
        message = f"a package for {opened.manifest.target} is timed here, not on a device"
        raise PrunecError("PC440", message, where="--device-csv", hint="leave it out")
    from prunec.backends.arm64.device import read_times, runner_command

    modelled = None if opened.elsewhere is None else opened.elsewhere.modelled
    command = runner_command(threads)
    if device_csv is None:
        device = None if opened.elsewhere is None else opened.elsewhere.device
        return OnDevice(command=command, device=device, modelled=modelled)
    device = read_times(Path(device_csv), opened.libraries_path)
    _write(opened, Elsewhere(modelled=modelled, device=device), device)
    return OnDevice(command=command, device=device, modelled=modelled)


def _write(package: Package, found: Elsewhere, device: DeviceTimes) -> None:
    """Evidence may be written again: no hash in the manifest is of it."""
    report = package.path / REPORT
    with os_errors(package.path):
        page = report.read_text(encoding="utf-8") if report.is_file() else ""
        changed = with_device(page, device)
        (package.path / MEASUREMENTS).write_bytes(dumps(found.to_json()).encode("utf-8"))
        if changed is not None:
            report.write_bytes(changed.encode("utf-8"))
