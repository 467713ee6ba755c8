"""Everything that can be missing for a build has a code and a way out."""

from __future__ import annotations

import types

import pytest

from prunec.backends.tensorrt import environment
from prunec.backends.tensorrt.scripts import build, device
from prunec.backends.tensorrt.scripts.build import NoTensorRT, load_tensorrt, make_logger
from prunec.backends.tensorrt.scripts.device import Gpu, NoDevice
from prunec.diagnostics import PrunecError

GPU = Gpu("NVIDIA A100", (8, 0), 40 << 30, 39 << 30, 13010)


def tensorrt(version: str = "10.13.0") -> types.SimpleNamespace:
    return types.SimpleNamespace(__version__=version)


def no_gpu() -> Gpu:
    raise NoDevice("there is no NVIDIA driver here (libcuda cannot be loaded)")


def too_old() -> object:
    raise NoTensorRT("TensorRT 8.6.1 is too old, 10.0 is the oldest that will do")


def broken() -> object:
    raise NoTensorRT("tensorrt cannot be imported: libnvinfer.so.11: cannot open shared object file")


def with_gpu(**changes: object) -> Gpu:
    return Gpu(**{**vars(GPU), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("find", "load", "code", "said"),
    [
        (no_gpu, tensorrt, "PC431", "no NVIDIA driver"),
        (lambda: with_gpu(capability=(7, 5)), tensorrt, "PC438", "compute capability 7.5"),
        (lambda: with_gpu(free_bytes=100 << 20), tensorrt, "PC433", "100 MiB free"),
        (lambda: GPU, too_old, "PC432", "too old"),
        (lambda: GPU, broken, "PC430", "cannot open shared object"),
    ],
)
def test_what_is_missing_is_said_with_a_way_out(find: object, load: object, code: str, said: str) -> None:
    with pytest.raises(PrunecError) as found:
        environment.check(find, load)  # type: ignore[arg-type]
    assert found.value.exit_code == 2
    assert found.value.diagnostic.code == code and said in str(found.value)
    assert "--no-build" in (found.value.diagnostic.hint or "")


def test_a_machine_that_has_everything_passes() -> None:
    environment.check(lambda: GPU, tensorrt)


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0"])
def test_old_versions_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.importlib, "import_module", lambda name: tensorrt(version))
    with pytest.raises(NoTensorRT, match="too old"):
        load_tensorrt()


@pytest.mark.parametrize("version", ["10.0.1", "10.13.3", "11.4.0.106"])
def test_ten_and_eleven_will_do(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.importlib, "import_module", lambda name: tensorrt(version))
    assert load_tensorrt().__version__ == version


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    with pytest.raises(NoDevice, match="libcuda cannot be loaded"):
        device.find_gpu()


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = types.SimpleNamespace(cuInit=lambda flags: 100)  # CUDA_ERROR_NO_DEVICE
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: library)
    with pytest.raises(NoDevice, match="does not start"):
        device.find_gpu()


def test_what_engines_are_tied_to_is_fit_for_a_file_name() -> None:
    assert with_gpu(name="NVIDIA GeForce RTX 4090", capability=(8, 9)).key == "NVIDIA-GeForce-RTX-4090-sm89"


def test_a_builder_that_does_not_start_is_a_missing_driver() -> None:
    class Logger:
        pass

    def nothing(logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt = types.SimpleNamespace(ILogger=Logger, Builder=nothing)
    Logger.__init__ = lambda self: None  # type: ignore[method-assign]
    assert make_logger(trt).lines == []
    with pytest.raises(NoTensorRT, match="missing driver"):
        build.build(trt, device.__file__, {}, sparse=False)  # type: ignore[arg-type]
