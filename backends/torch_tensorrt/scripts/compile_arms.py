"""Compile the modules of this package with Torch-TensorRT, time three arms, check outputs. Needs an NVIDIA GPU.

    python compile_arms.py [--rounds 30]      all arms; writes ARM.ep, ARM.log, results.json
    python compile_arms.py --arm sparse       one of dense, unflagged, sparse; its log goes to stderr

    dense       dense weights
    unflagged   2:4 weights, sparse kernels not allowed
    sparse      2:4 weights, sparse_weights=True

Exit code 0: faster and right; 1: not; 2: no GPU or no Torch-TensorRT. A speed-up is put down to sparse kernels only if
TensorRT says that it chose some.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunec.backends.tensorrt.scripts.sparse_log import outcome, read_log, sentence

ARMS: Mapping[str, tuple[str, bool]] = {
    "dense": ("dense.pt2", False),
    "unflagged": ("module.pt2", False),
    "sparse": ("module.pt2", True),
}


class Missing(RuntimeError):
    """No GPU, or no Torch-TensorRT."""


def load_torch_tensorrt() -> Any:
    """The module. Raises Missing."""
    if not torch.cuda.is_available():
        raise Missing("PyTorch finds no CUDA GPU here")
    try:
        return importlib.import_module("torch_tensorrt")
    except (ImportError, OSError) as reason:
        raise Missing(f"torch_tensorrt cannot be imported: {reason}") from reason


def settings(known: Sequence[str], *, sparse: bool) -> dict[str, Any]:
    """Options of `torch_tensorrt.dynamo.compile`, of which `known` are there.

    Up to TensorRT 10 precisions are allowed; strongly typed networks get FP16 by Torch-TensorRT's own casts.
    """
    common = {"sparse_weights": sparse, "min_block_size": 1, "optimization_level": 4}
    if "enable_autocast" in known:
        half = {"use_explicit_typing": True, "enable_autocast": True, "autocast_low_precision_type": torch.float16}
        return {**common, **{name: value for name, value in half.items() if name in known}}
    return {**common, "enabled_precisions": {torch.float16, torch.float32}}


def compile_arm(folder: Path, arm: str) -> None:
    """Write ARM.ep. TensorRT's log, with what it says about sparsity, goes to stderr."""
    trt = load_torch_tensorrt()
    file, sparse = ARMS[arm]
    program = torch.export.load(folder / file)
    data = inputs_of(folder)
    options = settings(list(inspect.signature(trt.dynamo.compile).parameters), sparse=sparse)
    with trt.logging.debug():
        compiled = trt.dynamo.compile(program, arg_inputs=arguments_of(trt, folder, data), **options)
    trt.save(compiled, str(folder / f"{arm}.ep"), arg_inputs=data)


def inputs_of(folder: Path) -> list[torch.Tensor]:
    """The test vectors' inputs on the GPU, in order."""
    with np.load(folder / "vectors.npz") as arrays:
        return [torch.from_numpy(arrays[key]).cuda() for key in arrays.files if key.startswith("in:")]


def arguments_of(trt: Any, folder: Path, data: Sequence[torch.Tensor]) -> list[Any]:
    """Tensors, or ranges of shapes where inputs are dynamic."""
    shapes = json.loads((folder / "shapes.json").read_text())
    with np.load(folder / "vectors.npz") as arrays:
        names = [key[3:] for key in arrays.files if key.startswith("in:")]
    found: list[Any] = []
    for name, tensor in zip(names, data, strict=True):
        if name not in shapes:
            found.append(tensor)
            continue
        least, usual, most = shapes[name]
        found.append(trt.Input(min_shape=least, opt_shape=usual, max_shape=most, dtype=tensor.dtype, name=name))
    return found


def run_arms(folder: Path, rounds: int) -> dict[str, Any]:
    """Compile each arm in a process of its own, load them all, time them in turn."""
    load_torch_tensorrt()
    for arm in ARMS:
        with (folder / f"{arm}.log").open("w") as log:
            command = [sys.executable, str(Path(__file__).resolve()), "--arm", arm, "--folder", str(folder)]
            subprocess.run(command, stderr=log, stdout=log, check=True)
    data = inputs_of(folder)
    modules = {arm: torch.export.load(folder / f"{arm}.ep").module() for arm in ARMS}
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(rounds + 1):
        for arm in list(ARMS)[:: 1 if number % 2 else -1]:
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(10):
                answer = modules[arm](*data)
            torch.cuda.synchronize()
            times[arm] += [(time.perf_counter() - start) * 100] * (number > 0)  # the first round warms up
    answer = modules["sparse"](*data)
    manifest = json.loads((folder / "sparsity.json").read_text())
    said = outcome(manifest["planned"], *read_log((folder / "sparse.log").read_text(errors="replace")))
    ratios = {arm: np.array(times[arm]) / np.array(times["sparse"]) for arm in ("dense", "unflagged")}
    return {
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": list(torch.cuda.get_device_capability()),
        "latency_ms": {arm: float(np.median(found)) for arm, found in times.items()},
        "speedup": {f"sparse_vs_{arm}": float(np.median(found)) for arm, found in ratios.items()},
        "lowest": {f"sparse_vs_{arm}": float(np.percentile(found, 2.5)) for arm, found in ratios.items()},
        "max_rel": _error(folder, answer if isinstance(answer, list | tuple) else (answer,)),
        "tolerance": manifest["tolerance"],
        "sparsity": asdict(said),
        "sentence": sentence(said),
    }


def _error(folder: Path, answers: Sequence[torch.Tensor]) -> float:
    with np.load(folder / "vectors.npz") as arrays:
        expected = [torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("out:")]
    return max(
        float((a.float().cpu() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-30))
        for a, b in zip(answers, expected, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compile and time this package with Torch-TensorRT.")
    parser.add_argument("--arm", choices=list(ARMS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args(arguments)
    try:
        if given.arm is not None:
            compile_arm(given.folder, given.arm)
            return 0
        results = run_arms(given.folder, given.rounds)
    except Missing as reason:
        sys.stderr.write(f"{reason}\nThis needs an NVIDIA GPU with its driver, and: pip install torch-tensorrt\n")
        return 2
    (given.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")
    is_right = results["max_rel"] <= results["tolerance"]
    return 0 if is_right and results["sparsity"]["chosen"] and results["lowest"]["sparse_vs_dense"] > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
