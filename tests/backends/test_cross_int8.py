"""Quantised graphs in code for other machines: the bytes of ONNX Runtime, and those of the CPU target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("ziglang", reason="needs the [cross] extra")

import prunec.models as zoo
from prunec.backends.cpu.building import build as build_here
from prunec.backends.cpu.compiled import CompiledModel
from prunec.backends.cpu.isa import ARM64_DOT, RELAXED_WASM, WASM, Isa, int8_isa
from prunec.backends.cpu.kernels.quad_depthwise import QuadDepthwise
from prunec.backends.cpu.kernels.quad_product import QuadProduct
from prunec.backends.cross.lowered import bools, lowered
from prunec.frontend.calibration import open_calibration
from prunec.frontend.onnx import load
from prunec.passes.canonicalise import canonicalise
from prunec.passes.quantise.driver import raised
from prunec.passes.quantise.observe import observe
from prunec.passes.quantise.placement import place
from prunec.passes.quantise.ranges import min_max
from prunec.passes.quantise.write import write
from tests.backends.kernel_support import elsewhere, is_arm64, needs_x86
from tests.backends.test_cpu_int8 import branches, quantised, waves
from tests.graph.checks import random_feeds, run

OTHERS = elsewhere(WASM, RELAXED_WASM, ARM64_DOT)


def answers(model: ir.Model, isa: Isa, feeds: Mapping[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """What the compiled model gives: under qemu, or in wasmtime and Node alike."""
    ready, program = lowered(model, isa, {})
    assert not program.in_float
    if is_arm64(isa):
        from prunec.backends.arm64.artifact import write_folder
        from prunec.backends.arm64.emulated import EmulatedModel

        return EmulatedModel(write_folder(program, bools(ready), isa, folder, name="model")).run(feeds)
    from prunec.backends.wasm.artifact import write_folder as write_module
    from prunec.backends.wasm.engine import WasmModel
    from prunec.backends.wasm.node import NodeModel, node

    module = write_module(program, bools(ready), isa, folder, name="model")
    found = {name: array.copy() for name, array in WasmModel(module).run(feeds).items()}
    if node() is not None:
        with NodeModel(module) as other:
            for name, array in other.run(feeds).items():
                np.testing.assert_array_equal(array, found[name])
    return found


@pytest.mark.parametrize("isa", OTHERS)
@pytest.mark.parametrize("make", [branches, waves])
def test_graphs(make: object, isa: Isa, tmp_path: Path) -> None:
    """Residuals, concatenation, pooling, depthwise layers, strides: as the graph says, every element."""
    model = quantised(make())  # type: ignore[operator]
    feeds = random_feeds(model, np.random.default_rng(3))
    found = answers(model, isa, feeds, tmp_path)
    for value, wanted in zip(model.graph.outputs, run(model, feeds, optimise=False), strict=True):
        assert wanted.std() > 3 * np.abs(wanted).max() / 255
        np.testing.assert_allclose(found[value.name or ""], wanted, rtol=0, atol=1e-3 * np.abs(wanted).max() / 255)


@needs_x86
@pytest.mark.parametrize("isa", OTHERS)
@pytest.mark.parametrize(("name", "tolerance"), [("fashion-net", 0.0), ("crepe-tiny", 2e-6)])
def test_models_give_what_the_cpu_target_gives(name: str, tolerance: float, isa: Isa, tmp_path: Path) -> None:
    """To the last bit, in weights of 7 bits, which relaxed products take; but for the sigmoid at the end of crepe."""
    model = raised(canonicalise(load(zoo.get(name).path).model))
    batches = list(open_calibration(None, model, samples=2, seed=0).fit())
    placement = place(model)
    seen = observe(model, placement.values, lambda: iter(batches), seed=0, threads=1)
    grids = {value: min_max(seen[value]) for value in placement.values}
    graph = write(model, placement, grids | {value: grids[root] for value, root in placement.shared.items()}, 7)
    feeds = {key: array[:1] for key, array in batches[0].items()}
    (tmp_path / "here").mkdir()
    here = CompiledModel(build_here(graph, int8_isa(), tmp_path / "here").folder, threads=1)
    found = answers(graph, isa, feeds, tmp_path)
    for key, wanted in here.run(feeds).items():
        np.testing.assert_allclose(found[key], wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    here.close()


def test_relaxed_products_are_chosen_layer_by_layer() -> None:
    """Weights of 8 bits, and depthwise layers, stay with what every host computes alike."""
    model = quantised(branches())
    _, program = lowered(model, RELAXED_WASM, {})
    steps = [step.call for step in program.steps]
    assert all(call.words == 2 for call in steps if isinstance(call, (QuadProduct, QuadDepthwise)))
