"""Numbers as people read them: three significant digits and a unit."""

from __future__ import annotations

from prunec.measure.results import Speedup

_MINUS = "\N{MINUS SIGN}"
_TIMES = "\N{MULTIPLICATION SIGN}"


def count(value: float) -> str:
    """1234567 -> 1.23 M."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T"))


def size(value: float) -> str:
    """46812345 -> 44.6 MiB."""
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def ms(value: float) -> str:
    """Milliseconds, or microseconds below one."""
    return f"{significant(value * 1e3)} µs" if value < 1 else f"{significant(value)} ms"


def duration(seconds: float) -> str:
    """41.3 s, or 3.40 min from two minutes on."""
    return f"{significant(seconds)} s" if seconds < 120 else f"{significant(seconds / 60)} min"


def change(before: float, after: float) -> str:
    """-42.1 %, +3.0 % or unchanged."""
    if before == after:
        return "unchanged"
    if before == 0:
        return "new"
    percent = (after / before - 1) * 100
    return f"{_MINUS if percent < 0 else '+'}{abs(percent):.1f} %"


def share(value: float) -> str:
    """0.421 -> 42.1 %."""
    return f"{value * 100:.1f} %"


def factor(value: float) -> str:
    """1.9234 -> 1.92x."""
    return f"{value:.2f}{_TIMES}"


def interval(speedup: Speedup) -> str:
    """1.92x (1.88 to 1.97), faster."""
    low, high = speedup.ci95
    return f"{factor(speedup.median)} ({low:.2f} to {high:.2f}), {speedup.verdict}"


def number(value: float) -> str:
    """A metric: four significant digits, no exponent where it can be helped."""
    return f"{value:.4g}".replace("-", _MINUS)


def error(value: float) -> str:
    """An error: two significant digits, with exponent where it is small (3.1e-7)."""
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def significant(value: float) -> str:
    """Three significant digits; no exponent from a ten-thousandth up."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def _scaled(value: float, base: int, names: tuple[str, ...]) -> str:
    level = 0
    while abs(value) >= base * 0.9995 and level < len(names) - 1:
        value, level = value / base, level + 1
    text = f"{value:.0f}" if level == 0 else significant(value)
    return f"{text} {names[level]}".strip()
