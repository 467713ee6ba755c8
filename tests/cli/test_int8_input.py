"""Models that come in 8 bits: taken apart, pruned, and put together again on the same grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnxruntime import quantization

from prunec.api.opening import open_model
from prunec.backends.onnx.session import make_session, run
from prunec.passes.quantise.ranges import Grid
from prunec.passes.quantise.strip import float_twin, strip
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual

SHAPE = (3, 17, 15)
QDQ, QOPERATOR = quantization.QuantFormat.QDQ, quantization.QuantFormat.QOperator
KINDS = {
    "channel": (QDQ, True, quantization.QuantType.QUInt8),
    "tensor": (QDQ, False, quantization.QuantType.QInt8),
    "operator": (QOPERATOR, True, quantization.QuantType.QUInt8),
}


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, data: np.ndarray) -> None:
        self._left = iter(data[:, None])

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self._left, None)
        return None if found is None else {"x": found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with additions, quantised by ONNX Runtime in every way, which leaves its ReLU out."""
    path = tmp_path_factory.mktemp("int8")
    data = np.random.default_rng(0).standard_normal((40, *SHAPE)).astype(np.float32)
    np.savez(path / "data.npz", x=data)
    ir.save(residual([1, *SHAPE], 32), path / "float.onnx")
    for name, (form, per_channel, kind) in KINDS.items():
        quantization.quantize_static(
            path / "float.onnx", path / f"{name}.onnx", Reader(data[:20]), quant_format=form, per_channel=per_channel,
            activation_type=kind, weight_type=quantization.QuantType.QInt8, reduce_range=True,
        )  # fmt: skip
    return path


@pytest.mark.parametrize("kind", ["channel", "tensor"])
def test_the_float_twin_is_the_model_without_its_rounding(folder: Path, kind: str) -> None:
    source = ir.load(folder / f"{kind}.onnx")
    assert "Relu" not in {node.op_type for node in source.graph}
    opened = open_model(folder / f"{kind}.onnx")
    assert opened.stripped is not None and len(opened.stripped.layers) == 4
    assert not {node.op_type for node in opened.canonical.graph} & {"QuantizeLinear", "DequantizeLinear"}
    feeds = {"x": np.load(folder / "data.npz")["x"][30:31]}
    models = (source, opened.canonical, ir.load(folder / "float.onnx"))
    whole, twin, real = (next(iter(run(make_session(model), feeds).values())) for model in models)
    assert 0 < np.abs(twin - whole).max() < 0.05 * np.abs(whole).max()
    assert np.abs(twin - real).max() < 0.05 * np.abs(real).max()


def test_grids_of_signed_and_unsigned_bytes_are_the_same_numbers() -> None:
    values = np.linspace(-3, 3, 101)
    signed, unsigned = Grid.of(0.01, np.array(-28, np.int8)), Grid.of(0.01, np.array(100, np.uint8))
    assert np.array_equal(signed.rounded(values), unsigned.rounded(values)) and signed.zero == 100


def test_float_models_and_other_quantisers_have_no_twin(folder: Path) -> None:
    assert all(float_twin(ir.load(folder / f"{name}.onnx")) is None for name in ("float", "operator"))


def test_blocks_of_zeros_come_out_in_8_bits_on_the_grids_that_came_in(folder: Path) -> None:
    options = ("--pattern", "block:4x4", "--sparsity", "0.5", "--calib", "data.npz", "--samples", "10", "--no-measure")
    done = prunec("compile", "tensor.onnx", *options, "-o", "out", "--json", cwd=folder)
    assert done.code == 0, done.err
    found = done.json["verification"]
    assert found["quantisation"]["rules"] == {"given": found["quantisation"]["values"]}
    assert found["patterns"]["passed"] and found["patterns"]["zeros"] > 0.4
    came, goes = (strip(ir.load(path)).grids for path in (folder / "tensor.onnx", folder / "out" / "model.onnx"))
    steps = {float(np.float32(scale)) for scale, _ in came.values()}
    assert goes and {float(np.float32(scale)) for scale, _ in goes.values()} <= steps
    again = prunec("verify", "out", "--source", "tensor.onnx", cwd=folder)
    assert again.code == 0, again.err


@pytest.mark.slow
def test_channels_are_cut_and_refitted(folder: Path) -> None:
    options = ("--flops", "0.6", "--calib", "data.npz", "--samples", "10", "--no-measure")
    done = prunec("compile", "channel.onnx", *options, "-o", "cut", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert done.json["verification"]["quantisation"]["error"] < 0.1 and done.json["verification"]["compensation"]
    assert done.json["bytes_after"] < 0.8 * done.json["bytes_before"]


def test_what_cannot_be_taken_apart_is_refused(folder: Path) -> None:
    options = ("--pattern", "2:4", "--calib", "data.npz", "--no-measure")
    refuses(prunec("compile", "operator.onnx", *options, "-o", "no", cwd=folder), "PC485")
    refuses(
        prunec("compile", "operator.onnx", "--flops", "0.5", "--precision", "int8", "-o", "no", cwd=folder), "PC485"
    )
    assert not (folder / "no").exists()


def test_targets_without_8_bits_say_so(folder: Path) -> None:
    options = (
        "--target",
        "x86-avx2",
        "--pattern",
        "channel",
        "--flops",
        "0.5",
        "--calib",
        "data.npz",
        "--samples",
        "10",
        "--dry-run",
        "--json",
    )
    done = prunec("compile", "tensor.onnx", *options, cwd=folder)
    assert done.code == 0, done.err
    assert "PC486" in {warning["code"] for warning in done.json["warnings"]}
