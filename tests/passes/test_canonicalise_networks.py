"""canonicalise on exported networks: promises, numbers, and how long it takes."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from types import ModuleType

import onnx_ir as ir
import pytest

from prunec.passes.canonicalise import canonicalise
from tests.passes.canonical_support import assert_canonical, assert_same, operators

# One of each kind: BN to fold, shuffle, both exporters, attention, recurrent, dynamic batch, control flow.
SAMPLE = [
    "bn_mobilenet_v2",
    "dynbatch_mobilenet_v3_small",
    "hf_gpt2",
    "hf_swin",
    "rnn_lstm_bi",
    "tv_shufflenet_v2_x0_5",
    "unet_diffusion",
    "det_fasterrcnn_mobilenet_v3_large_320_fpn",
]
MAX_CPU_SECONDS = {"tv_densenet201": 2.0, "tv_swin_v2_s": 20.0}
RUNTIME_RESHAPES = {"det_fasterrcnn_mobilenet_v3_large_320_fpn"}  # NMS decides shapes


@pytest.fixture(scope="module")
def loader(graphs_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("load_graph", graphs_dir / "load_graph.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check(name: str, loader: ModuleType, folder: Path) -> None:
    model = ir.from_proto(loader.load(folder / f"{name}.onnx.gz"))
    start = time.process_time()
    canonical = canonicalise(model)
    seconds = time.process_time() - start
    assert seconds < MAX_CPU_SECONDS.get(name, 10.0)
    assert operators(canonical)["Identity"] == 0
    if name not in RUNTIME_RESHAPES:
        assert_canonical(canonical)
        for node in canonical.graph:
            assert node.op_type != "Reshape" or node.inputs[1].is_initializer(), node.name
            assert all(value.shape is not None for value in node.outputs if value.name), node.name
    assert_same(model, canonical, s=8, seq=8)


@pytest.mark.parametrize("name", SAMPLE)
def test_sampled_networks(name: str, loader: ModuleType, graphs_dir: Path) -> None:
    _check(name, loader, graphs_dir)


@pytest.mark.slow
def test_all_networks(loader: ModuleType, graphs_dir: Path) -> None:
    names = sorted(path.name.removesuffix(".onnx.gz") for path in graphs_dir.glob("*.onnx.gz"))
    assert len(names) > 90
    for name in names:
        _check(name, loader, graphs_dir)
