"""Is 2:4 faster on this GPU? Three engines of one network, timed in turn, and checked against the test vectors.

    python benchmark.py [--rounds 30]

    dense        dense weights
    unflagged    2:4 weights, sparse kernels not allowed: zeros alone must cost and gain nothing
    sparse       2:4 weights, sparse kernels allowed

Each round runs every arm for a block, odd rounds backwards, so that clocks and heat fall on all alike; what is
compared are paired ratios of block medians with a bootstrap interval. Writes results.json. Exit code 0: faster and
right; 1: not. A speed-up is put down to sparse kernels only if TensorRT chose some.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from prunec.backends.tensorrt.scripts.build import ARMS, BuildError, NoTensorRT, build_arms
from prunec.backends.tensorrt.scripts.device import NoDevice, find_gpu
from prunec.backends.tensorrt.scripts.engine import Engine
from prunec.backends.tensorrt.scripts.sparse_log import outcome, read_layers, read_log, sentence

BLOCK_S = 0.02
RESAMPLES = 2000


def load_vectors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(inputs, expected outputs) of vectors.npz, whose keys are `in:NAME` and `out:NAME`."""
    with np.load(path) as arrays:
        found = {key: arrays[key] for key in arrays.files}
    return (
        {key[3:]: array for key, array in found.items() if key.startswith("in:")},
        {key[4:]: array for key, array in found.items() if key.startswith("out:")},
    )


def max_relative(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """Largest error over all outputs, relative to each output's largest magnitude; inf where shapes differ."""
    worst = 0.0
    for name, array in expected.items():
        if array.shape != found[name].shape:
            return float("inf")
        difference = np.abs(found[name].astype(np.float64) - array.astype(np.float64))
        scale = float(np.abs(array.astype(np.float64)).max()) if array.size else 0.0
        worst = max(worst, float(difference.max()) / (scale or 1.0) if array.size else 0.0)
    return worst


def l2_relative(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """Norm of the error over that of the output, of the worst output; inf where shapes differ or it is no number."""
    worst = 0.0
    for name, array in expected.items():
        if array.shape != found[name].shape or not np.isfinite(found[name]).all():
            return float("inf")
        difference = found[name].astype(np.float64) - array.astype(np.float64)
        worst = max(worst, float(np.linalg.norm(difference)) / (float(np.linalg.norm(array.astype(np.float64))) or 1.0))
    return worst


ERRORS: Mapping[str, Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], float]] = {
    "max_rel": max_relative,
    "l2_rel": l2_relative,
}
"""What a tolerance may bound: `bounds` of sparsity.json."""


def time_arms(engines: Mapping[str, Any], rounds: int) -> dict[str, list[float]]:
    """Milliseconds: the median of every block of every arm, paired by round."""
    runs = {}
    for name, engine in engines.items():
        for _ in range(10):
            engine.run()
        start = time.perf_counter()
        engine.run()
        runs[name] = max(int(BLOCK_S / max(time.perf_counter() - start, 1e-6)), 3)
    medians: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        order = list(engines) if number % 2 == 0 else list(engines)[::-1]
        for name in order:
            times = []
            engines[name].run()
            for _ in range(runs[name]):
                start = time.perf_counter()
                engines[name].run()
                times.append(time.perf_counter() - start)
            medians[name].append(float(np.median(times)) * 1e3)
    return medians


def ratio(baseline: Sequence[float], subject: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Median paired ratio, above 1 where the subject is faster, with a 95 % bootstrap interval."""
    pairs = np.array(baseline) / np.array(subject)
    drawn = np.random.default_rng(seed).integers(0, len(pairs), (RESAMPLES, len(pairs)))
    low, high = np.percentile(np.median(pairs[drawn], axis=1), [2.5, 97.5])
    return {"median": float(np.median(pairs)), "ci95": [float(low), float(high)]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time dense, 2:4 and 2:4 on sparse kernels, in turn.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    given = parser.parse_args(arguments)
    manifest = json.loads((given.folder / "sparsity.json").read_text())
    feeds, expected = load_vectors(given.folder / "vectors.npz")
    try:
        gpu = find_gpu()
        built = build_arms(given.folder)
        engines = {arm: Engine(built[arm].plan, feeds) for arm in ARMS}
        medians = time_arms(engines, given.rounds)
        engines["sparse"].run()
        answers = engines["sparse"].download()
        errors = {name: measure(expected, answers) for name, measure in ERRORS.items()}
    except (NoDevice, NoTensorRT) as reason:
        sys.stderr.write(f"{reason}\nThis needs an NVIDIA GPU with its driver, and: pip install tensorrt\n")
        return 2
    except BuildError as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    said = outcome(manifest["planned"], *read_log(built["sparse"].log), read_layers(built["sparse"].layers))
    speedup = {f"sparse_vs_{arm}": ratio(medians[arm], medians["sparse"]) for arm in ("dense", "unflagged")}
    results = {
        "gpu": gpu.name, "compute_capability": list(gpu.capability), "driver": gpu.driver,
        "latency_ms": {arm: float(np.median(times)) for arm, times in medians.items()}, "block_medians_ms": medians,
        "speedup": speedup, **errors, "bounds": manifest["bounds"], "tolerance": manifest["tolerance"],
        "sparsity": asdict(said),
    }  # fmt: skip
    (given.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for arm, times in medians.items():
        sys.stdout.write(f"{arm:10s} {np.median(times):8.3f} ms\n")
    for name, found in speedup.items():
        low, high = found["ci95"]
        sys.stdout.write(f"{name}: {found['median']:.2f} (95 % interval {low:.2f} to {high:.2f})\n")
    sys.stdout.write(
        f"{sentence(said)}\nerror against the test vectors ({manifest['bounds']}) {errors[manifest['bounds']]:.1e}, "
        f"allowed {manifest['tolerance']:g}\n"
    )
    is_faster = said.has_sparse_kernels and speedup["sparse_vs_dense"]["ci95"][0] > 1
    return 0 if is_faster and errors[manifest["bounds"]] <= manifest["tolerance"] else 1


if __name__ == "__main__":
    sys.exit(main())
