"""Samples from `module:function`, imported from the working directory or the environment.

The function gets those of the keyword arguments `samples` and `seed` that it accepts, and returns (or yields) dicts of
arrays, or plain arrays for a model with one input. It is called once; what it gave is kept.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from prunec.array_store import ArrayStore
from prunec.diagnostics import PrunecError

KEPT_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class _Arrays:
    """An item whose arrays are in the store."""

    names: tuple[str, ...]
    is_mapping: bool


class KeptSource:
    """Items (where, item) of an iterator that can run once; what it gave is kept, in files where it is much."""

    def __init__(self, spec: str, items: Iterator[object]) -> None:
        self.spec = spec
        self._iterator = items
        self._store: ArrayStore[tuple[int, str]] = ArrayStore(KEPT_BYTES)
        self._kept: list[object] = []

    def items(self) -> Iterator[tuple[str, object]]:
        index = 0
        while True:
            if index == len(self._kept):
                try:
                    item = next(self._iterator)
                except StopIteration:
                    return
                except PrunecError:
                    raise
                except Exception as error:  # the user's code may raise anything
                    raise self._failed(error) from error
                self._kept.append(self._keep(index, item))
            yield f"{self.spec}, item {index}", self._item(index)
            index += 1

    def fingerprint(self, used: int) -> str:
        """sha256 over the first `used` items: names, types, shapes and contents."""
        digest = hashlib.sha256()
        for index in range(min(used, len(self._kept))):
            item = self._item(index)
            named = item if isinstance(item, Mapping) else {"": item}
            for name in sorted(named):
                array = np.ascontiguousarray(named[name])
                digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()

    def _keep(self, index: int, item: object) -> object:
        """Copies of the arrays: a generator may fill the same ones for its next item."""
        if not isinstance(item, Mapping | np.ndarray):
            return item
        named = item if isinstance(item, Mapping) else {"": item}
        for name, value in named.items():
            self._store.put((index, name), np.array(value))
        return _Arrays(tuple(named), isinstance(item, Mapping))

    def _item(self, index: int) -> object:
        kept = self._kept[index]
        if not isinstance(kept, _Arrays):
            return kept
        found = {name: self._store.get((index, name)) for name in kept.names}
        return found if kept.is_mapping else found[""]

    def _failed(self, error: Exception) -> PrunecError:
        return _raised(self.spec, error)


class FunctionSource(KeptSource):
    """The items of a user's function."""

    def __init__(self, spec: str, *, samples: int, seed: int) -> None:
        super().__init__(spec, _call(spec, _import(spec), samples, seed))


def _call(spec: str, function: Callable[..., object], samples: int, seed: int) -> Iterator[object]:
    try:
        result = function(**_accepted(function, {"samples": samples, "seed": seed}))
    except Exception as error:  # the user's code may raise anything
        raise _raised(spec, error) from error
    if isinstance(result, Mapping):
        return iter([result])
    if isinstance(result, np.ndarray):
        return iter([result])
    if not isinstance(result, Iterable):
        raise PrunecError(
            "PC311",
            f"returned a {type(result).__name__}, not samples",
            where=spec,
            hint="return an iterable of dicts {input name: array}",
        )
    return iter(result)


def _raised(spec: str, error: Exception) -> PrunecError:
    return PrunecError(
        "PC310",
        f"raised {type(error).__name__}: {error}",
        where=spec,
        hint="call the function on its own to see where it fails",
    )


def _import(spec: str) -> Callable[..., object]:
    module_name, _, name = spec.partition(":")
    folder = os.getcwd()
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs the user's code
        raise PrunecError(
            "PC309",
            f"cannot be imported: {type(error).__name__}: {error}",
            where=spec,
            hint="write module:function, the module being importable from the working directory",
        ) from error
    finally:
        if added:
            sys.path.remove(folder)
    if not callable(found):
        raise PrunecError("PC309", f"a {type(found).__name__}, not a function", where=spec, hint="name a function")
    return found


def _accepted(function: Callable[..., object], arguments: Mapping[str, object]) -> dict[str, object]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return dict(arguments)
    keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {k: v for k, v in arguments.items() if k in parameters and parameters[k].kind in keyword}
