"""Read the tensors of a torch checkpoint without torch, and without running anything that the file says.

A checkpoint is a pickle plus raw storages: since torch 1.6 a zip (`*/data.pkl`, `*/data/KEY`), before that a sequence
of pickles followed by the storages. Pickle can call any function, so only the five names below are allowed; every other
one, and a tensor that points outside its storage, raises PC706.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunec.diagnostics import PrunecError

Array = npt.NDArray[Any]

STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    elements: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage that may not have been read yet: offset, shape and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_torch_weights(path: Path) -> dict[str, Array]:
    """The state dict as native arrays; entries that are not tensors are left out."""
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_legacy(path)
    except (pickle.UnpicklingError, KeyError, ValueError, EOFError, IndexError, AttributeError, TypeError) as error:
        raise _refuse(path, str(error)) from error


def _read_zip(path: Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = index.removesuffix("data.pkl")
        state = _Unpickler(io.BytesIO(archive.read(index))).load()
        return _tensors(state, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_legacy(path: Path) -> dict[str, Array]:
    """Magic, protocol, system information, state, keys; then per key an int64 count and the elements."""
    with path.open("rb") as stream:
        if _Unpickler(stream).load() != LEGACY_MAGIC:
            raise ValueError("not a torch checkpoint")
        _Unpickler(stream).load()
        _Unpickler(stream).load()
        unpickler = _Unpickler(stream)
        state = unpickler.load()
        raw: dict[str, bytes] = {}
        for key in _Unpickler(stream).load():
            (elements,) = struct.unpack("<q", stream.read(8))
            raw[key] = stream.read(elements * unpickler.storages[key].dtype.itemsize)
    return _tensors(state, lambda storage: raw[storage.key])


def _tensors(state: Any, read: Callable[[_Storage], bytes]) -> dict[str, Array]:
    if not isinstance(state, dict):
        raise ValueError("the checkpoint is not a dictionary of tensors")
    return {name: _materialise(t, read(t.storage)) for name, t in state.items() if isinstance(t, _Tensor)}


def _materialise(tensor: _Tensor, raw: bytes) -> Array:
    flat = np.frombuffer(raw, tensor.storage.dtype)
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        raise ValueError("a tensor has a negative offset, size or stride")
    if math.prod(tensor.shape) > len(flat) or (0 not in tensor.shape and tensor.offset + reach >= len(flat)):
        raise ValueError("a tensor reaches outside its storage")
    strides = [stride * flat.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view.astype(flat.dtype.newbyteorder("=")))


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries and tensors. `storages` collects what the pickle refers to."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no weights file needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, elements, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"unknown reference {pid!r}")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, int(elements)))


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _refuse(path: Path, reason: str) -> PrunecError:
    return PrunecError(
        "PC706", f"the weights cannot be read safely: {reason}", where=str(path), hint="delete the file, fetch it again"
    )
