"""The CUDA driver through ctypes: which GPU is there, its memory, buffers, streams. Needs the driver, nothing else."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

_MAJOR, _MINOR = 75, 76  # CUdevice_attribute, cuda.h
SPARSE_FROM = (8, 0)
"""Compute capability of the first sparse tensor cores (Ampere)."""


class NoDevice(RuntimeError):
    """There is no NVIDIA driver, or no GPU that it can use."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU. Memory in bytes; `driver` is the newest CUDA version that the driver runs, as 13010 for 13.1."""

    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: int

    @property
    def key(self) -> str:
        """What plans and timings are tied to, fit for a file name."""
        safe = "".join(c if c.isalnum() else "-" for c in self.name)
        return f"{safe}-sm{self.capability[0]}{self.capability[1]}"


def find_gpu() -> Gpu:
    """Raise NoDevice where there is none."""
    driver = Driver()
    name = ctypes.create_string_buffer(256)
    driver("cuDeviceGetName", name, 256, driver.device)
    major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    driver("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, driver.device)
    driver("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, driver.device)
    driver("cuDriverGetVersion", ctypes.byref(version))
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), total.value, free.value, version.value)


class Driver:
    """libcuda with the primary context of the first GPU made current. Calls raise RuntimeError with CUDA's message."""

    def __init__(self) -> None:
        self._library = _load()
        found = self._library.cuInit(0)
        if found:
            raise NoDevice(f"the NVIDIA driver does not start (CUDA error {found})")
        count = ctypes.c_int()
        if self._library.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
            raise NoDevice("the NVIDIA driver finds no GPU")
        self.device = ctypes.c_int()
        self("cuDeviceGet", ctypes.byref(self.device), 0)
        context = ctypes.c_void_p()
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)  # the one that TensorRT uses
        self("cuCtxSetCurrent", context)

    def __call__(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{function}: {(text.value or b'CUDA error ' + str(code).encode()).decode()}")

    def allocate(self, nbytes: int) -> int:
        """The device address of `nbytes` bytes (at least one)."""
        address = ctypes.c_void_p()
        self("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(nbytes, 1)))
        assert address.value is not None
        return address.value

    def free(self, address: int) -> None:
        self("cuMemFree_v2", ctypes.c_void_p(address))

    def upload(self, address: int, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array)
        pointer = ctypes.c_void_p(data.ctypes.data)
        self("cuMemcpyHtoD_v2", ctypes.c_void_p(address), pointer, ctypes.c_size_t(data.nbytes))

    def download(self, address: int, array: np.ndarray) -> None:
        """Into `array`, which is contiguous."""
        pointer = ctypes.c_void_p(array.ctypes.data)
        self("cuMemcpyDtoH_v2", pointer, ctypes.c_void_p(address), ctypes.c_size_t(array.nbytes))

    def stream(self) -> int:
        found = ctypes.c_void_p()
        self("cuStreamCreate", ctypes.byref(found), 1)  # non-blocking
        assert found.value is not None
        return found.value

    def wait(self, stream: int) -> None:
        self("cuStreamSynchronize", ctypes.c_void_p(stream))


def _load() -> Any:
    for name in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise NoDevice("there is no NVIDIA driver here (libcuda cannot be loaded)")
