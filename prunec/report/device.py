"""The section of a report about a device: empty at first, and put in when its times are known."""

from __future__ import annotations

from prunec.measure.modelled import DeviceTimes
from prunec.report.template import template

_BEGIN, _END = "<!-- device -->\n", "<!-- end of device -->"


def device_section(device: DeviceTimes | None) -> str:
    """HTML between two marks; nothing between them without a device."""
    return f"{_BEGIN}{template('device.html').render(device=device)}{_END}"


def with_device(page: str, device: DeviceTimes) -> str | None:
    """A report with this section in place of the one that it has; None where it has no place for it."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return before + device_section(device) + after if begin and end else None
