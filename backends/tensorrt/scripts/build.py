"""Build the engines of this package with TensorRT's Python API. Needs an NVIDIA GPU; `--smoke` does not.

    python build.py                    all three arms: dense weights; 2:4 weights; 2:4 weights on sparse kernels
    python build.py --arm sparse       one of them: dense, unflagged, sparse
    python build.py --smoke            parse and build ahead of time with TensorRT-RTX, no GPU: that the graph is
                                       accepted, and nothing about sparsity or speed

Writes ARM.engine, ARM.log (verbose) and ARM.layers.json (which kernel each layer runs on) beside this file, and a
timing cache for this TensorRT on this GPU. Engines are tied to both: build where you run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunec.backends.tensorrt.scripts.device import SPARSE_FROM, Gpu, NoDevice, find_gpu
from prunec.backends.tensorrt.scripts.sparse_log import outcome, read_layers, read_log, sentence

ARMS: Mapping[str, tuple[str, bool]] = {
    "dense": ("dense.onnx", False),
    "unflagged": ("model.onnx", False),
    "sparse": ("model.onnx", True),
}
"""Arm → (ONNX file, whether sparse kernels may be chosen)."""
SMOKE_CAPABILITIES = ("SM80", "SM89")
OLDEST = (10, 0)
OPTIMISATION_LEVEL = 4
"""At least 3, or TensorRT takes the first kernel that works; higher levels time more of them."""


class BuildError(RuntimeError):
    """The network was not accepted, or no engine came of it. `problems`: everything TensorRT said, in its words."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *problems]))
        self.message, self.problems = message, tuple(problems)


class NoTensorRT(RuntimeError):
    """TensorRT is not installed, too old, or cannot start."""


@dataclass(frozen=True)
class Built:
    """A serialised engine, the verbose log of its build and the inspector's JSON."""

    plan: bytes
    log: str
    layers: str


def load_tensorrt(name: str = "tensorrt") -> Any:
    """The module. Raises NoTensorRT."""
    try:
        trt = importlib.import_module(name)
    except ImportError as reason:
        raise NoTensorRT(f"{name} cannot be imported: {reason}") from reason
    version = tuple(int(part) for part in str(trt.__version__).split(".")[:2])
    if name == "tensorrt" and version < OLDEST:
        raise NoTensorRT(f"TensorRT {trt.__version__} is too old, {OLDEST[0]}.{OLDEST[1]} is the oldest that will do")
    return trt


def make_logger(trt: Any) -> Any:
    """A logger that keeps every line with TensorRT's own tag: [V] verbose to [E] error and [F] internal error."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            name = str(severity).rpartition(".")[2]
            self.lines.append(f"[{'F' if name == 'INTERNAL_ERROR' else name[:1]}] [TRT] {message}")

        def errors(self) -> list[str]:
            return [line for line in self.lines if line.startswith(("[E]", "[F]"))]

    return Logger()


def build(
    trt: Any,
    onnx: Path,
    shapes: Mapping[str, Sequence[Sequence[int]]],
    *,
    sparse: bool,
    timing_cache: Path | None = None,
    capability: str | None = None,
) -> Built:
    """One engine. `shapes`: input → least, usual, largest; needed for inputs with dynamic axes.

    `capability` ("SM80") builds ahead of time for another GPU, which TensorRT-RTX can.

    Raises:
        BuildError: with every error of the parser, or the builder's.
        NoTensorRT: the builder cannot start: there is no driver.
    """
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as reason:  # how the bindings say that their factory returned nothing
        raise NoTensorRT(f"TensorRT's builder does not start, which a missing driver does: {reason}") from reason
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        problems = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise BuildError(f"TensorRT does not accept {onnx.name}", problems)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = OPTIMISATION_LEVEL
    if sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    add_profile(builder, network, config, shapes)
    cache = None
    if timing_cache is not None:
        cache = config.create_timing_cache(timing_cache.read_bytes() if timing_cache.exists() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT builds no engine of {onnx.name}", logger.errors() or logger.lines[-3:])
    if timing_cache is not None and cache is not None:
        timing_cache.write_bytes(bytes(cache.serialize()))
    layers = "" if capability is not None else inspect(trt, logger, bytes(plan))
    return Built(bytes(plan), "\n".join(logger.lines) + "\n", layers)


def add_profile(builder: Any, network: Any, config: Any, shapes: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """An optimisation profile where an input is dynamic. BuildError for one without a range."""
    dynamic = []
    for index in range(network.num_inputs):
        value = network.get_input(index)
        if any(length < 0 for length in value.shape):
            dynamic.append(value.name)
    missing = [name for name in dynamic if name not in shapes]
    if missing:
        raise BuildError(
            f"no range of shapes for {', '.join(missing)}", ["give least, usual and largest in shapes.json"]
        )
    if dynamic:
        profile = builder.create_optimization_profile()
        for name in dynamic:
            least, usual, most = (tuple(shape) for shape in shapes[name])
            profile.set_shape(name, least, usual, most)
        config.add_optimization_profile(profile)


def inspect(trt: Any, logger: Any, plan: bytes) -> str:
    """The engine inspector's JSON."""
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError("the engine cannot be read back", logger.errors())
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def cache_name(trt: Any, gpu: Gpu) -> str:
    """A timing cache is right for one TensorRT on one kind of GPU."""
    return f"timing-{trt.__version__}-{gpu.key}.cache"


def build_arms(folder: Path, arms: Sequence[str] = tuple(ARMS)) -> dict[str, Built]:
    """Build and write the engines of the package in `folder`. NoDevice, NoTensorRT, BuildError."""
    gpu = find_gpu()
    trt = load_tensorrt()
    if gpu.capability < SPARSE_FROM:
        raise NoDevice(f"{gpu.name} has no sparse tensor cores (compute capability {gpu.capability}, 8.0 is the first)")
    shapes = json.loads((folder / "shapes.json").read_text())
    cache = folder / cache_name(trt, gpu)
    found = {}
    for arm in arms:
        file, sparse = ARMS[arm]
        built = build(trt, folder / file, shapes, sparse=sparse, timing_cache=cache)
        (folder / f"{arm}.engine").write_bytes(built.plan)
        (folder / f"{arm}.log").write_text(built.log)
        (folder / f"{arm}.layers.json").write_text(built.layers)
        found[arm] = built
    return found


def smoke(onnx: Path, shapes: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, Any]:
    """Parse and build with TensorRT-RTX for other GPUs. Says that a graph is accepted, nothing else."""
    trt = load_tensorrt("tensorrt_rtx")
    errors: dict[str, list[str]] = {}
    for capability in SMOKE_CAPABILITIES:
        try:
            build(trt, onnx, shapes, sparse=True, capability=capability)
        except BuildError as problem:
            errors[capability] = [problem.message, *problem.problems]
    return {
        "tool": f"tensorrt-rtx {trt.__version__}",
        "architectures": list(SMOKE_CAPABILITIES),
        "passed": not errors,
        "errors": sorted({line for lines in errors.values() for line in lines}),
    }


def main_smoke(folder: Path) -> int:
    """Print what TensorRT-RTX says of the package as one line of JSON; the exit code."""
    try:
        found = smoke(folder / "model.onnx", json.loads((folder / "shapes.json").read_text()))
    except NoTensorRT as reason:
        sys.stderr.write(f"{reason}\nThis needs TensorRT-RTX, and no GPU: pip install tensorrt-rtx-cu13\n")
        return 2
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if found["passed"] else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build this package's TensorRT engines.")
    parser.add_argument("--arm", choices=list(ARMS), action="append")
    parser.add_argument("--smoke", action="store_true", help="parse and build with TensorRT-RTX, without a GPU")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args(arguments)
    if given.smoke:
        return main_smoke(given.folder)
    try:
        built = build_arms(given.folder, given.arm or tuple(ARMS))
    except (NoDevice, NoTensorRT) as reason:
        sys.stderr.write(f"{reason}\nThis needs an NVIDIA GPU with its driver, and: pip install tensorrt\n")
        return 2
    except BuildError as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    for arm, one in built.items():
        sys.stdout.write(f"{arm}: {len(one.plan) / 2**20:.1f} MiB\n")
    if "sparse" in built:
        planned = json.loads((given.folder / "sparsity.json").read_text())["planned"]
        said = outcome(planned, *read_log(built["sparse"].log), read_layers(built["sparse"].layers))
        sys.stdout.write(sentence(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
