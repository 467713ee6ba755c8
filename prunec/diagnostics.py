"""Errors and warnings in one form: code, where, why, what to do.

A user's mistake raises `PrunecError` (exit code 2, no traceback); a gate, a verification or a measurement that
says no raises `GateError` (exit code 1). Anything else that escapes is our bug and shows its traceback.

Code ranges: PC0xx input files · PC1xx graph and coupling · PC2xx patterns, budgets and plans · PC3xx calibration
and metrics · PC4xx targets and back ends · PC5xx verification and measurement · PC6xx packages and the file system
· PC7xx zoo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Diagnostic:
    """One finding. `where` names a node, tensor, file or option; `hint` says what the user can do.

    `details` are for programs: what --json says beside the rest.
    """

    code: str
    message: str
    where: str | None = None
    hint: str | None = None
    details: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"[{self.code}]: {self.message}{place}"


class PrunecError(Exception):
    """Wrong usage, bad input, unsupported model or missing extra: exit code 2.

    >>> raise PrunecError("PC101", "axis is reshaped at run time", where="Reshape_12", hint="fix the input shape")
    Traceback (most recent call last):
    prunec.diagnostics.PrunecError: [PC101]: axis is reshaped at run time (Reshape_12)
    """

    exit_code = 2

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.diagnostic = Diagnostic(code, message, where, hint, details)
        super().__init__(str(self.diagnostic))


class GateError(PrunecError):
    """A gate, a verification or a measurement said no: exit code 1."""

    exit_code = 1


class Interrupted(PrunecError):
    """Ctrl-C in something that keeps what is done: exit code 130."""

    exit_code = 130
