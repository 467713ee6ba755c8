"""Sub-packages that share their name with a public function: `prunec.plan` is both.

Importing `prunec.plan.anything` binds the module `prunec.plan` as the attribute `plan` of `prunec`, over any function
of that name. So the module itself answers the call and forwards it to `prunec.api`, and the import order is of no
consequence. See docs/decisions/0002-callable-packages.md.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is the function of the same name in `prunec.api`, imported at the first call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self)(*args, **kwargs)

    @property
    def __signature__(self) -> Any:
        """What `inspect.signature` and `help` show: the function's own signature."""
        import inspect

        return inspect.signature(_function(self))


def make_callable(package: str) -> None:
    """Turn the package named `package`, which is being imported, into a `CallablePackage`.

    >>> make_callable(__name__)  # in the package's __init__.py
    """
    sys.modules[package].__class__ = CallablePackage


def _function(package: ModuleType) -> Any:
    return getattr(importlib.import_module("prunec.api"), package.__name__.rpartition(".")[2])
