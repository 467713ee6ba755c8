"""The public functions, one per command: the command line is a thin layer over these.

Keyword arguments mirror the options (`--max-drop 0.01` is `max_drop=0.01`); results are frozen records, and their
`to_json()` is what the command prints with --json. A mistake raises `PrunecError`; a gate or a check that says no
raises `GateError`.
"""

from __future__ import annotations

from prunec.api.benchmarking import bench
from prunec.api.compilation import compile
from prunec.api.explanation import explain
from prunec.api.inspection import inspect
from prunec.api.listing import recipes, zoo
from prunec.api.planning import plan
from prunec.api.targets import targets
from prunec.api.verification import verify

__all__ = ["bench", "compile", "explain", "inspect", "plan", "recipes", "targets", "verify", "zoo"]
