"""Run a compiled model through ctypes: numpy in and out, nothing copied that need not be.

Every input is checked before the library sees it: PrunecError PC614 for names, shapes and dtypes that are not the
model's, PC621 for NaN, PC622 where the library refuses (its own message), PC451 where this machine cannot run it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from prunec.backends.cpu.elf import is_cut_short
from prunec.diagnostics import PrunecError

BAD_CPU, NO_MEMORY = 2, 4


class _CTensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
    )


@dataclass(frozen=True)
class TensorInfo:
    """One input or output; bools are uint8."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


class Model:
    """One instance of a compiled model: an arena and threads of its own, weights shared through the file's mapping.

    Calls of `run` from several threads are safe and wait for each other. A context manager; `close` frees everything.
    """

    def __init__(self, library: Path, weights: Path, *, threads: int = 1, takes_nan: bool = False) -> None:
        self._takes_nan = takes_nan
        try:
            if is_cut_short(library):
                raise OSError("the file is cut short")
            self._library = ctypes.CDLL(_spelled(library))
        except OSError as reason:
            raise PrunecError("PC622", f"the library cannot be loaded: {reason}", where=str(library)) from None
        self._declare()
        self._handle = ctypes.c_void_p()
        status = self._library.prunec_model_create(os.fsencode(weights), threads, ctypes.byref(self._handle))
        if status:
            code = "PC451" if status == BAD_CPU else "PC622"
            hint = "free some memory" if status == NO_MEMORY else "compile the model again on this machine"
            raise PrunecError(code, self._message(), where=str(library), hint=hint)
        self.shapes = tuple(
            (self._tensors("input", number), self._tensors("output", number))
            for number in range(self._library.prunec_shape_count())
        )
        self.isa = self._library.prunec_isa().decode()

    def _declare(self) -> None:
        pointers = ctypes.POINTER(ctypes.c_void_p)
        for name in ("input", "output"):
            getattr(self._library, f"prunec_{name}_of").restype = ctypes.POINTER(_CTensor)
        for name in ("prunec_last_error", "prunec_isa", "prunec_step_name"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._library.prunec_arena_bytes.restype = ctypes.c_size_t
        self._library.prunec_model_create.argtypes = [ctypes.c_char_p, ctypes.c_int, pointers]
        run, times = (ctypes.c_void_p, ctypes.c_int, pointers, pointers), ctypes.POINTER(ctypes.c_int64)
        self._library.prunec_model_run_shape.argtypes = run
        self._library.prunec_model_profile.argtypes = (*run, times)
        self._library.prunec_model_destroy.argtypes = [ctypes.c_void_p]
        self._library.prunec_model_destroy.restype = None

    def _tensors(self, kind: str, shape: int) -> tuple[TensorInfo, ...]:
        count = getattr(self._library, f"prunec_{kind}_count")()
        found = (getattr(self._library, f"prunec_{kind}_of")(shape, number).contents for number in range(count))
        return tuple(TensorInfo(t.name.decode(), np.dtype(t.dtype.decode()), tuple(t.shape[: t.rank])) for t in found)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Of the first shape."""
        return self.shapes[0][0]

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Of the first shape."""
        return self.shapes[0][1]

    def _message(self) -> str:
        return str(self._library.prunec_last_error().decode(errors="replace"))

    @property
    def arena_bytes(self) -> int:
        """Memory for intermediate results."""
        return int(self._library.prunec_arena_bytes())

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()

    def close(self) -> None:
        """Free the arena and end the threads. Idempotent; `run` is refused afterwards."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        if handle.value is not None:
            self._library.prunec_model_destroy(handle)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, from the program for the shapes of the inputs."""
        shape, arrays = self._checked(feeds)
        results = {info.name: np.empty(info.shape, info.dtype) for info in self.shapes[shape][1]}
        self._call(self._library.prunec_model_run_shape, shape, arrays, list(results.values()))
        return results

    def profile(self, feeds: Mapping[str, np.ndarray], number: int | None = None) -> list[tuple[str, int]]:
        """One run: the nodes of every step, and the nanoseconds that it took. `number` picks among programs alike."""
        shape, arrays = self._checked(feeds)
        shape = shape if number is None else number
        results = [np.empty(info.shape, info.dtype) for info in self.shapes[shape][1]]
        count = self._library.prunec_step_count(shape)
        times = (ctypes.c_int64 * max(count, 1))()
        self._call(self._library.prunec_model_profile, shape, arrays, results, times)
        return [(self._library.prunec_step_name(shape, i).decode(), int(times[i])) for i in range(count)]

    def _call(
        self,
        function: Callable[..., int],
        shape: int,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
        *rest: object,
    ) -> None:
        if self._handle.value is None:
            raise PrunecError("PC622", "the model was closed")
        if function(self._handle, shape, _pointers(inputs), _pointers(outputs), *rest):
            raise PrunecError("PC622", f"the compiled model refused: {self._message()}")

    def _checked(self, feeds: Mapping[str, np.ndarray]) -> tuple[int, list[np.ndarray]]:
        """Which shape it is, and the arrays in the order of the inputs."""
        wanted = {info.name for info in self.inputs}
        if feeds.keys() != wanted:
            given = ", ".join(sorted(feeds)) or "none"
            raise PrunecError("PC614", f"the model takes {', '.join(sorted(wanted)) or 'no inputs'}, not {given}")
        arrays = [_checked(feeds[info.name], info) for info in self.inputs]
        shape = self._find_shape([array.shape for array in arrays])
        if not self._takes_nan:
            for info, array in zip(self.inputs, arrays, strict=True):
                refuse_nan(info.name, array)
        return shape, arrays

    def _find_shape(self, given: list[tuple[int, ...]]) -> int:
        """The number of the program for these shapes of the inputs; PC614 where there is none."""
        known = [[info.shape for info in inputs] for inputs, _ in self.shapes]
        if given in known:
            return known.index(given)
        number = next((i for i in range(len(given)) if all(given[i] != shapes[i] for shapes in known)), 0)
        name, wanted = self.inputs[number].name, " or ".join(dict.fromkeys(str(shapes[number]) for shapes in known))
        hint = "generated code has fixed shapes; compile again with --input-shape"
        raise PrunecError("PC614", f"{name} is {wanted}, not {given[number]}", where=name, hint=hint)


def _checked(array: np.ndarray, info: TensorInfo) -> np.ndarray:
    """The array in row-major order, with the dtype of the input."""
    given = np.asarray(array)
    if given.dtype == np.bool_ and info.dtype == np.uint8:
        given = given.view(np.uint8)
    if given.dtype != info.dtype:
        raise PrunecError("PC614", f"{info.name} is {info.dtype}, not {given.dtype}", where=info.name)
    return np.ascontiguousarray(given) if given.ndim else given


def refuse_nan(name: str, array: np.ndarray) -> None:
    """Raise PrunecError PC621 if an element is NaN."""
    with np.errstate(invalid="ignore"):  # a sum is cheap; infinities may make it NaN too
        is_suspect = array.dtype.kind == "f" and np.isnan(array.sum())
    if is_suspect and np.isnan(array).any():
        raise PrunecError("PC621", f"{name} holds NaN", where=name, hint="clean the data")


_seen: dict[str, list[tuple[int, int]]] = {}


def _spelled(library: Path) -> str:
    """A name that the loader has not seen for another file: it takes what it once loaded under the same name.

    So a package that was compiled again, or the same relative path in another folder, is loaded anew. Raises OSError.
    """
    path, status = library.resolve(), library.stat()
    files = _seen.setdefault(str(path), [])
    own = (status.st_dev, status.st_ino)
    if own not in files:  # a mapped file keeps its inode, so no other file can have the same one meanwhile
        files.append(own)
    return f"{path.parent}{'/' * (1 + files.index(own))}{path.name}"


def _pointers(arrays: list[np.ndarray]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))
