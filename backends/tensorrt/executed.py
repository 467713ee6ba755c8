"""On a GPU: build the three arms, compare with ONNX Runtime, say which kernels were chosen, hand over to timing.

Nothing here has been executed where prunec is developed: there is no GPU.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from prunec.backends.base import Feeds
from prunec.backends.tensorrt.package import FOLDER, VECTORS
from prunec.backends.tensorrt.scripts.benchmark import ERRORS, load_vectors
from prunec.backends.tensorrt.scripts.build import ARMS, BuildError, Built, NoTensorRT, build_arms, load_tensorrt
from prunec.backends.tensorrt.scripts.device import NoDevice, find_gpu
from prunec.backends.tensorrt.scripts.engine import Engine
from prunec.backends.tensorrt.scripts.sparse_log import outcome, read_layers, read_log
from prunec.diagnostics import GateError, PrunecError
from prunec.measure.contender import TENSORRT, Contender
from prunec.verify.records import KernelsRecord, LoweringRecord

CONTENDERS = {"dense": TENSORRT, "unflagged": "tensorrt_zeros", "sparse": "prunec"}
"""Arm → its name in measurements.json."""
RUNNER = "prunec.backends.tensorrt.runner:EngineRunner"


@dataclass(frozen=True)
class Executed:
    """What happened on the GPU; the engines lie in `scratch`."""

    kernels: KernelsRecord
    contenders: tuple[Contender, ...]
    scratch: tempfile.TemporaryDirectory[str]


def execute(folder: Path, planned: list[str], lowering: LoweringRecord) -> Executed:
    """Build and run the package's `folder`, in a copy: engines are for this machine and stay out of the package.

    What `lowering` bounds of the graph is bounded of the engine too.

    Raises:
        PrunecError PC431, PC430: no GPU or TensorRT after all; PC439: TensorRT does not take the graph.
        GateError PC526: an engine's outputs are wrong.
    """
    scratch = tempfile.TemporaryDirectory(prefix="prunec-tensorrt-")
    place = Path(scratch.name, FOLDER)
    try:
        shutil.copytree(folder, place)
        built = _build(place)
        feeds, expected = load_vectors(place / VECTORS)
        answers = _answers(built["sparse"], feeds)
        errors = {name: measure(expected, answers) for name, measure in ERRORS.items()}
        error = errors[lowering.bounds]
        if not error <= lowering.tolerance:
            message = (
                f"the engine's outputs differ by {error:.1e} from ONNX Runtime's, more than {lowering.tolerance:g}"
            )
            raise GateError("PC526", message, hint="report this model; model.onnx of the package is not affected")
        gpu = find_gpu()
        said = outcome(planned, *read_log(built["sparse"].log), read_layers(built["sparse"].layers))
        kernels = KernelsRecord(
            gpu=gpu.name, compute_capability=".".join(map(str, gpu.capability)),
            tensorrt=str(load_tensorrt().__version__), found=said.eligible, chosen=said.chosen, sparse=said.sparse,
            kept_dense=said.kept_dense, unknown=said.unknown, tactics=said.tactics, max_rel=errors["max_rel"],
        )  # fmt: skip
        contenders = tuple(Contender(name, place / f"{arm}.engine", RUNNER) for arm, name in CONTENDERS.items())
    except BaseException:
        scratch.cleanup()
        raise
    return Executed(kernels, contenders, scratch)


def _build(place: Path) -> dict[str, Built]:
    try:
        return build_arms(place, tuple(ARMS))
    except NoDevice as reason:
        raise PrunecError("PC431", str(reason), where="--target", hint="pass --no-build") from None
    except NoTensorRT as reason:
        raise PrunecError("PC430", str(reason), where="--target", hint="pass --no-build") from None
    except BuildError as reason:
        said = "; ".join(reason.problems[:10])
        message = f"{reason.message}: {said}" if said else reason.message
        hint = "pass --no-build to get the package all the same"
        raise PrunecError("PC439", message, where="--target", hint=hint) from None


def _answers(built: Built, feeds: Feeds) -> Feeds:
    engine = Engine(built.plan, feeds)
    engine.run()
    return engine.download()
