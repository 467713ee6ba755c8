"""The path with a GPU, against stand-ins for TensorRT and the engine: what is recorded, refused and handed to timing.

The stand-ins compute nothing. That TensorRT does what they pretend has never been executed where prunec is developed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from prunec.backends.base import BuildOptions, Subject, first_batches
from prunec.backends.tensorrt import environment, executed, runner
from prunec.backends.tensorrt.scripts import build as scripted
from prunec.backends.tensorrt.scripts.benchmark import load_vectors
from prunec.backends.tensorrt.scripts.device import NoDevice
from prunec.backends.tensorrt.target import TensorRT
from prunec.diagnostics import GateError, PrunecError
from prunec.passes.canonicalise import canonicalise
from prunec.plan.plan import LayerPlan
from tests.graph.builder import Builder
from tests.tensorrt import fake_tensorrt
from tests.tensorrt.test_checker import sparse
from tests.tensorrt.test_environment import GPU, no_gpu

LOG = """\
(Sparsity) Found 1 layer(s) eligible to use sparse tactics: {node}
(Sparsity) Chose {count} layer(s) using sparse tactics{names}
"""


def subject() -> Subject:
    b = Builder(0)
    x = b.input("x", [4, 64])
    weight = b.const(sparse((256, 64), 1))
    b.output(b.op("Softmax", [b.op("Gemm", [x, weight], transB=1)]))
    model = canonicalise(b.model())
    name = next(node.name or "" for node in model.graph if node.op_type == "Gemm")
    plan = LayerPlan(node=name, tensor="w", pattern="2:4", level=0.5, why="--include")
    batch = {"x": np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)}
    return Subject("net.onnx", model, model, (plan,), (batch,), lambda: [batch])


class Engine:
    """Answers what the test vectors expect, times `factor`."""

    factor = 1.0
    expected: Mapping[str, np.ndarray] = {}

    def __init__(self, plan: bytes, feeds: Mapping[str, np.ndarray]) -> None:
        assert plan == b"plan" and set(feeds) == {"x"}
        self.ran = 0

    def run(self) -> None:
        self.ran += 1

    def download(self) -> dict[str, np.ndarray]:
        assert self.ran
        return {name: array * self.factor for name, array in self.expected.items()}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A GPU, a TensorRT that chooses a sparse kernel, and an engine that is right."""

    def prepare(count: int = 1, factor: float = 1.0, **changes: Any) -> None:
        node = subject().layers[0].node
        log = LOG.format(count=count, node=node, names=f": {node}" if count else "")
        trt = fake_tensorrt.make(log=log, shape=(4, 64), **changes)
        Engine.factor = factor
        for module in (scripted, executed):
            monkeypatch.setattr(module, "find_gpu", lambda: GPU)
            monkeypatch.setattr(module, "load_tensorrt", lambda: trt)
        monkeypatch.setattr(environment, "check", lambda: None)
        monkeypatch.setattr(executed, "Engine", Engine)

        def vectors(path: Path) -> Any:
            feeds, expected = load_vectors(path)
            Engine.expected = expected
            return feeds, expected

        monkeypatch.setattr(executed, "load_vectors", vectors)

    return prepare


def test_what_tensorrt_chose_is_recorded_and_engines_are_handed_to_timing(tmp_path: Path, machine: Any) -> None:
    machine()
    own = subject()
    TensorRT().check(BuildOptions())
    found = TensorRT().write(tmp_path, own, BuildOptions())
    assert found.tensorrt is not None and found.tensorrt.executed and found.warnings == ()
    kernels = found.tensorrt.kernels
    assert kernels is not None and (kernels.found, kernels.chosen, kernels.max_rel) == (1, 1, 0.0)
    assert kernels.sparse == (own.layers[0].node,) and kernels.kept_dense == ()
    assert kernels.gpu == "NVIDIA A100" and kernels.compute_capability == "8.0" and kernels.tensorrt == "10.13.0"
    assert [contender.name for contender in found.contenders] == ["tensorrt_dense", "tensorrt_zeros", "prunec"]
    assert all(contender.model.read_bytes() == b"plan" for contender in found.contenders)
    assert found.feeds is not None and found.feeds["x"].shape == (4, 64)
    package = tmp_path / "tensorrt"
    assert not list(package.glob("*.engine")), "engines are for this machine and stay out of the package"
    document = json.loads((package / "sparsity.json").read_text())
    assert document["executed"] is True and "Not executed" not in (package / "README.md").read_text()
    assert found.scratch is not None
    found.scratch.cleanup()
    assert not found.contenders[0].model.exists()


@pytest.mark.parametrize(("factor", "is_right"), [(1.2, True), (1.3, False)])
def test_engines_in_int8_are_held_to_the_norm_of_their_outputs(
    tmp_path: Path, machine: Any, factor: float, is_right: bool
) -> None:
    machine(factor=factor)
    options = BuildOptions(builds=True, precision="int8")
    if is_right:
        record = TensorRT().write(tmp_path, subject(), options).tensorrt
        assert record is not None and record.kernels is not None and record.kernels.max_rel == pytest.approx(0.2)
    else:
        with pytest.raises(GateError, match="PC526"):
            TensorRT().write(tmp_path, subject(), options)


def test_scales_are_of_calibration_data_and_errors_of_held_out_data(tmp_path: Path) -> None:
    found = subject()
    (held_out,) = found.batches
    fit = {"x": held_out["x"] / np.abs(held_out["x"]).max() * 127}
    options = BuildOptions(builds=False, precision="int8")
    lowering = TensorRT().write(tmp_path, replace(found, fit=lambda: [fit]), options).lowering
    assert lowering is not None and lowering.l2_rel is not None
    initializers = ir.load(tmp_path / "tensorrt/model.onnx").graph.initializers
    scale = next(value.const_value for name, value in initializers.items() if name.startswith("x.scale"))
    assert scale is not None and scale.numpy() == 1
    assert json.loads((tmp_path / "tensorrt/sparsity.json").read_text())["bounds"] == "l2_rel"


def test_small_batches_are_made_up_for_by_more_of_them() -> None:
    def batches(size: int) -> list[dict[str, np.ndarray]]:
        return [{"scale": np.float32(1)[...], "x": np.zeros((size, 3), np.float32)} for _ in range(40)]

    assert [len(first_batches(batches(size), 2, 16)) for size in (1, 4, 8, 32)] == [16, 4, 2, 2]
    assert len(first_batches(batches(1), 2)) == 2 and len(first_batches(batches(1), 2, 100)) == 40


def test_that_tensorrt_kept_dense_is_a_result(tmp_path: Path, machine: Any) -> None:
    machine(count=0)
    found = TensorRT().write(tmp_path, subject(), BuildOptions())
    assert found.tensorrt is not None and found.tensorrt.kernels is not None and found.scratch is not None
    kernels = found.tensorrt.kernels
    assert (kernels.chosen, kernels.sparse, len(kernels.kept_dense)) == (0, (), 1)
    found.scratch.cleanup()


def test_wrong_outputs_are_a_no(tmp_path: Path, machine: Any) -> None:
    machine(factor=1.5)
    with pytest.raises(GateError, match=r"PC526.*5\.0e-01"):
        TensorRT().write(tmp_path, subject(), BuildOptions())


def test_a_graph_that_tensorrt_refuses_is_said_in_its_words(tmp_path: Path, machine: Any) -> None:
    machine(errors=("node gemm3: no", "node softmax: no"))
    with pytest.raises(PrunecError, match=r"PC439.*node gemm3: no; node softmax: no") as found:
        TensorRT().write(tmp_path, subject(), BuildOptions())
    assert found.value.exit_code == 2 and "--no-build" in (found.value.diagnostic.hint or "")


def test_a_gpu_that_is_gone_by_then(tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.setattr(scripted, "find_gpu", no_gpu)
    with pytest.raises(PrunecError, match="PC431"):
        TensorRT().write(tmp_path, subject(), BuildOptions())


def test_the_runner_uploads_once_and_runs(tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine()
    monkeypatch.setattr(runner, "Engine", Engine)
    monkeypatch.setattr(runner, "find_gpu", lambda: GPU)
    monkeypatch.setattr(runner, "load_tensorrt", lambda: fake_tensorrt.make())
    (tmp_path / "a.engine").write_bytes(b"plan")
    own = runner.EngineRunner()
    own.load(tmp_path / "a.engine", {"x": np.zeros((4, 64), np.float32)}, threads=1)
    own.run()
    assert own.versions() == {"tensorrt": "10.13.0", "gpu": "NVIDIA A100"}


def test_an_engine_binds_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers, shapes and types, against a driver that keeps them in a dict."""
    from types import SimpleNamespace

    from prunec.backends.tensorrt.scripts import engine as module

    memory: dict[int, np.ndarray] = {}

    class Driver:
        def allocate(self, nbytes: int) -> int:
            memory[len(memory) + 1] = np.zeros(nbytes, np.uint8)
            return len(memory)

        def upload(self, address: int, array: np.ndarray) -> None:
            memory[address][:] = array.reshape(-1).view(np.uint8)

        def download(self, address: int, array: np.ndarray) -> None:
            array.reshape(-1).view(np.uint8)[:] = memory[address]

        def stream(self) -> int:
            return 7

        def wait(self, stream: int) -> None:
            assert stream == 7

    bound: dict[str, int] = {}

    def execute(stream: int) -> bool:
        memory[bound["y"]][:] = memory[bound["x"]]
        return True

    context = SimpleNamespace(
        set_input_shape=lambda name, shape: shape[0] <= 8, get_tensor_shape=lambda name: (2, 3),
        set_tensor_address=lambda name, address: bound.update({name: address}), execute_async_v3=execute,
    )  # fmt: skip
    found = SimpleNamespace(
        num_io_tensors=2, get_tensor_name=lambda i: "xy"[i], create_execution_context=lambda: context,
        get_tensor_mode=lambda name: "in" if name == "x" else "out", get_tensor_dtype=lambda name: "float",
    )  # fmt: skip
    trt = fake_tensorrt.make()
    trt.TensorIOMode = SimpleNamespace(INPUT="in")
    trt.nptype = lambda dtype: np.float32
    trt.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: found if plan else None)
    monkeypatch.setattr(module, "Driver", Driver)
    monkeypatch.setattr(module, "load_tensorrt", lambda: trt)
    data = np.arange(6, dtype=np.float64).reshape(2, 3)
    own = module.Engine(b"plan", {"x": data})
    own.run()
    assert np.array_equal(own.download()["y"], data.astype(np.float32))
    with pytest.raises(scripted.BuildError, match="outside of the engine's range"):
        module.Engine(b"plan", {"x": np.zeros((9, 3))})
    with pytest.raises(scripted.BuildError, match="another GPU or TensorRT"):
        module.Engine(b"", {"x": data})


def test_the_driver_through_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which calls are made, and that errors carry CUDA's message, against a library of Python functions."""
    import ctypes

    from prunec.backends.tensorrt.scripts import device

    class Library:
        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGetCount(self, count: Any) -> int:
            count._obj.value = 1
            return 0

        def cuDeviceGetName(self, name: Any, size: int, which: Any) -> int:
            name.value = b"NVIDIA L4"
            return 0

        def cuDeviceGetAttribute(self, value: Any, attribute: int, which: Any) -> int:
            value._obj.value = {75: 8, 76: 9}[attribute]
            return 0

        def cuDriverGetVersion(self, value: Any) -> int:
            value._obj.value = 13010
            return 0

        def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
            free._obj.value, total._obj.value = 5 << 30, 24 << 30
            return 0

        def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
            return 2

        def cuGetErrorString(self, code: int, text: Any) -> int:
            text._obj.value = b"out of memory"
            return 0

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    gpu = device.find_gpu()
    assert (gpu.name, gpu.capability, gpu.free_bytes, gpu.driver) == ("NVIDIA L4", (8, 9), 5 << 30, 13010)
    with pytest.raises(RuntimeError, match="cuMemAlloc_v2: out of memory"):
        device.Driver().allocate(1 << 40)
    monkeypatch.setattr(Library, "cuDeviceGetCount", lambda self, count: 0)
    with pytest.raises(NoDevice, match="finds no GPU"):
        device.find_gpu()
