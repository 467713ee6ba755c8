"""Our conversion to FP16 beside NVIDIA's: `modelopt.onnx.autocast` on the same graphs and calibration samples. No GPU.

    python -m benchmarks.tensorrt_autocast fashion-net crepe-tiny minilm-l6 [--samples N] [--markdown F]

The dense canonical model is converted by prunec, by autocast's `convert_to_mixed_precision` (which looks at calibration
data) and by its `convert_to_f16` (which does not), in an environment of its own. `FP32 nodes`: those that read a
floating-point value in FP32, casts left out, by operator; `as ours`: how many of them prunec leaves in FP32 too. Errors
are against the FP32 model, on held-out samples, in ONNX Runtime; what fails says why.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from benchmarks.environments import NoEnvironment, python_of
from benchmarks.peers.catalogue import PEERS
from benchmarks.tables import line, markdown
from benchmarks.tensorrt_command import add_model_arguments
from benchmarks.tensorrt_models import opened
from prunec.api.opening import open_model
from prunec.backends.base import Feeds, first_batches
from prunec.backends.tensorrt.lower import CALIBRATE, CALIBRATE_SAMPLES, convert, errors
from prunec.frontend.calibration import open_calibration
from prunec.verify.inputs import first_line
from prunec.verify.ort_errors import ORT_ERRORS

REQUIREMENTS = (
    *PEERS["modelopt"].requirements, "onnx_graphsurgeon==0.6.1", "onnxruntime==1.31.1", "onnxslim==0.1.98",
    "polygraphy==0.53.6", "onnxconverter-common==1.16.0", "onnxscript==0.7.2", "lief==1.0.0",
)  # fmt: skip
METHODS = {"mixed": "autocast, mixed precision", "f16": "autocast, convert_to_f16"}
ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 1800


@dataclass(frozen=True)
class Row:
    model: str
    tool: str
    nodes: int | None
    fp32_nodes: int | None
    which: str | None
    as_ours: int | None
    casts: int | None
    max_rel: str | None
    l2_rel: str | None
    note: str = ""


def in_fp32(model: ir.Model) -> dict[str, str]:
    """Node → operator, of those that read a value in FP32: by the first output's name, which converters keep."""
    typed = ShapeInferencePass()(model.clone()).model
    return {
        node.outputs[0].name or "": node.op_type
        for node in typed.graph
        if node.op_type not in ("Cast", "Constant")
        and any(value is not None and value.dtype == ir.DataType.FLOAT for value in node.inputs)
    }


def row(name: str, tool: str, dense: ir.Model, model: ir.Model, ours: dict[str, str], data: Sequence[Feeds]) -> Row:
    try:
        found = errors(dense, model, data)
    except ORT_ERRORS as error:
        return failure(name, tool, f"does not run: {first_line(error)}")
    kept = in_fp32(model)
    return Row(
        model=name,
        tool=tool,
        nodes=sum(node.op_type not in ("Cast", "Constant") for node in model.graph),
        fp32_nodes=len(kept),
        which=", ".join(f"{count} {op}" for op, count in Counter(kept.values()).most_common()),
        as_ours=len(kept.keys() & ours.keys()),
        casts=sum(node.op_type == "Cast" for node in model.graph),
        max_rel=f"{max(found['max_rel'].values()):.1e}",
        l2_rel=f"{max(found['l2_rel'].values()):.1e}",
    )


def failure(name: str, tool: str, why: str) -> Row:
    return Row(name, tool, None, None, None, None, None, None, None, note=f"failed: {why[:150]}")


def rows(name: str, arguments: argparse.Namespace, place: Path) -> Iterator[Row]:
    with opened(name, arguments.graphs) as source:
        dense = open_model(source.path, source.shapes).canonical
        data = open_calibration(source.calib, dense, samples=arguments.samples, seed=0, demanded=True)
        fit = first_batches(data.fit(), CALIBRATE, CALIBRATE_SAMPLES)
        held_out = list(data.held_out())
        half = convert(dense, fit, 1).model
        ours = in_fp32(half)
        yield row(name, "prunec", dense, half, ours, held_out)
        ir.save(dense, place / "dense.onnx")
        np.savez(place / "calibration.npz", **fit[0])
        for method, tool in METHODS.items():
            found = ask(place, method)
            yield (
                row(name, tool, dense, found, ours, held_out)
                if isinstance(found, ir.Model)
                else failure(name, tool, found)
            )


def ask(place: Path, method: str) -> ir.Model | str:
    """The converted model, or why there is none."""
    try:
        python = python_of("modelopt-onnx", REQUIREMENTS, lambda text: print(f"# {text}", file=sys.stderr))
    except NoEnvironment as reason:
        return str(reason)
    files = [str(place / file) for file in ("dense.onnx", "calibration.npz", f"{method}.onnx")]
    done = subprocess.run(
        [str(python), "-m", "benchmarks.run_autocast", *files, method], cwd=place, check=False, capture_output=True,
        text=True, timeout=LIMIT_S, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return ir.load(files[2])


def main() -> int:
    parser = argparse.ArgumentParser(description="FP16 by prunec and by ModelOpt's autocast.")
    add_model_arguments(parser)
    arguments = parser.parse_args()
    table: list[Row] = []
    for name in arguments.models:
        with tempfile.TemporaryDirectory(prefix="prunec-autocast-") as place:
            for found in rows(name, arguments, Path(place)):
                table.append(found)
                print(line(found), flush=True)
                if arguments.markdown:
                    arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
