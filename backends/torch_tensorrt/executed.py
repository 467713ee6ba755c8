"""On a GPU: compile the three arms with Torch-TensorRT, say what TensorRT chose, hand over to timing.

Nothing here has been executed where prunec is developed: there is no GPU.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunec.backends.tensorrt.executed import CONTENDERS, Executed
from prunec.diagnostics import GateError, PrunecError
from prunec.measure.contender import Contender
from prunec.verify.records import KernelsRecord

RUNNER = "prunec.backends.torch_tensorrt.executed:ProgramRunner"


def execute(folder: Path, tolerance: float) -> Executed:
    """Compile and run the package's `folder` in a copy: what comes of it is for this machine.

    Raises:
        PrunecError PC439: Torch-TensorRT does not take the program; GateError PC526: outputs are wrong.
    """
    scratch = tempfile.TemporaryDirectory(prefix="prunec-torch-tensorrt-")
    place = Path(scratch.name, folder.name)
    try:
        shutil.copytree(folder, place)
        command = [sys.executable, str(place / "compile_arms.py"), "--folder", str(place), "--rounds", "5"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not (place / "results.json").exists():
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:500]
            hint = "pass --no-build to get the package all the same"
            raise PrunecError("PC439", f"Torch-TensorRT compiles nothing: {said}", where="--target", hint=hint)
        kernels = kernels_of(json.loads((place / "results.json").read_text()))
        if not kernels.max_rel <= tolerance:
            message = (
                f"the compiled module differs by {kernels.max_rel:.1e} from ONNX Runtime, more than {tolerance:.0e}"
            )
            raise GateError("PC526", message, hint="report this model; model.onnx of the package is not affected")
        contenders = tuple(Contender(name, place / f"{arm}.ep", RUNNER) for arm, name in CONTENDERS.items())
    except BaseException:
        scratch.cleanup()
        raise
    return Executed(kernels, contenders, scratch)


def kernels_of(results: Mapping[str, Any]) -> KernelsRecord:
    """`results.json` of the package as a record."""
    import torch_tensorrt

    said = results["sparsity"]
    return KernelsRecord(
        gpu=results["gpu"], compute_capability=".".join(map(str, results["compute_capability"])),
        tensorrt=f"torch-tensorrt {torch_tensorrt.__version__}", found=said["eligible"], chosen=said["chosen"],
        sparse=tuple(said["sparse"]), kept_dense=tuple(said["kept_dense"]), unknown=tuple(said["unknown"]),
        tactics=said["tactics"], max_rel=results["max_rel"],
    )  # fmt: skip


class ProgramRunner:
    """A `Runner` for compiled programs (.ep). Inputs are on the GPU; a run ends when the GPU is done."""

    def load(self, model: Path, feeds: Mapping[str, np.ndarray], *, threads: int) -> None:
        import torch
        import torch_tensorrt  # noqa: F401  (registers the operators that a compiled program calls)

        self._module = torch.export.load(model).module()
        self._inputs = [torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in feeds.values()]

    def run(self) -> object:
        import torch

        answer = self._module(*self._inputs)
        torch.cuda.synchronize()
        return answer

    def versions(self) -> dict[str, str]:
        import torch
        import torch_tensorrt

        return {"torch_tensorrt": str(torch_tensorrt.__version__), "gpu": torch.cuda.get_device_name()}
