"""The user's own metric: `--metric module:function`.

    def function(run) -> float | dict[str, float]: ...

`run(feeds)` takes a dict of arrays and returns a dict of arrays, for the dense and for the pruned model alike.
Of a dict, the first number is the primary one. Higher is better. How much test data it takes is the function's choice.
The module is looked up in the working directory first, then where Python finds modules.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from prunec.diagnostics import PrunecError
from prunec.verify.inputs import Run, first_line

Metric = Callable[..., Any]
_HINT = "write it as def metric(run): … return 0.93"


def load_metric(spec: str) -> Metric:
    """The function that `module:function` names.

    Raises:
        PrunecError PC350: not of that form, no such module, no such function, or the module fails to import.
    """
    module_name, colon, name = spec.partition(":")
    if not colon or not module_name or not name:
        raise _error("PC350", f"{spec!r} is not module:function", "for example --metric my_metrics:accuracy")
    sys.path.insert(0, os.getcwd())
    try:
        found: object = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as reason:
        raise _error("PC350", f"no module {reason.name!r}", "is it in this folder, or installed?") from reason
    except AttributeError as reason:
        raise _error("PC350", first_line(reason), f"does {module_name} define {name}?") from reason
    except Exception as reason:  # user code: any mistake is theirs
        cause = f"{type(reason).__name__}: {first_line(reason)}"
        raise _error("PC350", f"{module_name} does not import: {cause}") from reason
    finally:
        sys.path.remove(os.getcwd())
    if not callable(found):
        raise _error("PC350", f"{spec} is not a function", _HINT)
    return found


def evaluate(metric: Metric, run: Run, *, samples: int | None) -> dict[str, float]:
    """Numbers by name, the primary one first; a bare number is called after the function.

    Raises:
        PrunecError PC351: the function fails, or returns something else than finite numbers.
    """
    keywords = {"samples": samples} if samples is not None and _takes(metric, "samples") else {}
    try:
        result = metric(run, **keywords)
    except PrunecError:
        raise
    except Exception as reason:  # user code: any mistake is theirs
        raise _error("PC351", f"it fails: {type(reason).__name__}: {first_line(reason)}", _HINT) from reason
    values = result if isinstance(result, Mapping) else {getattr(metric, "__name__", "metric"): result}
    numbers = {str(name): _number(value) for name, value in values.items()}
    if not numbers:
        raise _error("PC351", "it returns no numbers", _HINT)
    return numbers


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as reason:
        raise _error("PC351", f"it returns {type(value).__name__}, not a number", _HINT) from reason
    if not math.isfinite(number):
        raise _error("PC351", f"it returns {number}", "a metric has to be a finite number")
    return number


def _takes(function: Metric, name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _error(code: str, message: str, hint: str | None = None) -> PrunecError:
    return PrunecError(code, message, where="--metric", hint=hint)
