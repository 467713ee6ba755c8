"""The cost model of machines that are not here: what it says of products, what it chooses, what plans make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("ziglang", reason="needs the [cross] extra")

from prunec.backends.cpu.isa import ARM64, WASM, Isa
from prunec.backends.cpu.kernel_table import with_zeros
from prunec.backends.cpu.kernels.row_major import RowMajor
from prunec.backends.cpu.lower.candidates import by_rule
from prunec.backends.cross import cost_model
from prunec.backends.cross.cost_model import CORTEX_A76, Work, by_model, core_for, cycles, node_times
from prunec.backends.cross.lowered import lowered
from prunec.passes.canonicalise import canonicalise
from prunec.passes.sparsify import LayerPattern
from prunec.patterns import parse
from tests.cli.helpers import prunec
from tests.cli.networks import residual
from tests.graph.builder import Builder

WORK = Work((1, 14, 14), 256, 4, (2, 7), 1, 1, 0, 256 * 256, 64 * 2304)


def network() -> ir.Model:
    """Two convolutions of usual size, one of 1×1, and a product of one row."""
    b = Builder(0)
    y = b.relu(b.conv(b.relu(b.conv(b.input("x", [1, 32, 14, 14]), 64)), 64))
    y = b.relu(b.conv(y, 128, k=1))
    b.output(b.gemm(b.op("Flatten", [b.op("GlobalAveragePool", [y])]), 32))
    return canonicalise(b.model())


def test_cycles_follow_the_slowest_of_arithmetic_loads_and_memory() -> None:
    whole = cycles(CORTEX_A76, ARM64, WORK)
    sums = 14 * 14 // (2 * 7) * WORK.blocks * 14
    assert sums / 2 < whole < 1.3 * sums / 2  # 14 multiply-adds for each block, two in a cycle
    quarter = cycles(CORTEX_A76, ARM64, replace(WORK, blocks=WORK.blocks // 4))
    assert 3.3 < whole / quarter < 4
    single = cycles(CORTEX_A76, ARM64, replace(WORK, tile=(1, 1)))
    assert single > 3 * whole  # a sum waits for itself, and every pixel loads the weights
    far = replace(WORK, grid=(1, 1, 1), tile=(1, 1), inputs=2304)
    bytes_alone = far.weight_bytes / CORTEX_A76.memory_bytes
    assert bytes_alone <= cycles(CORTEX_A76, ARM64, far) <= 1.5 * bytes_alone  # one pixel: weights come once, from afar
    twice = replace(CORTEX_A76, calibration=2.0, error=0.1)
    assert cycles(twice, ARM64, WORK) == 2 * whole and "10% median error" in twice.label
    assert "not calibrated" in CORTEX_A76.label


@pytest.mark.parametrize("isa", [ARM64, WASM], ids=lambda isa: isa.name)
def test_every_product_has_a_time_and_zeros_take_some_of_it(isa: Isa) -> None:
    model = network()
    names = [node.name or "" for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    wanted = dict.fromkeys(names[1:], LayerPattern(parse("block:8x1"), 0.75))
    _, dense = lowered(model, isa, {})
    _, sparse = lowered(with_zeros(model, wanted), isa, {})
    before, after = node_times(dense, isa), node_times(sparse, isa)
    assert set(names) <= before.keys() and before.keys() == after.keys()
    assert before[names[0]] == after[names[0]]
    assert all(1.2 < before[name] / after[name] < 4.2 for name in names[1:3])


def test_what_it_chooses_is_no_slower_than_the_rule_and_fits_into_registers() -> None:
    model = network()
    for density in (1.0, 0.25):
        pattern = LayerPattern(parse("block:4x1"), 1 - density)
        names = [node.name or "" for node in model.graph if node.op_type == "Conv"]
        own = model if density == 1 else with_zeros(model, dict.fromkeys(names, pattern))
        (_, chosen), (_, ruled) = (lowered(own, ARM64, {}, choose) for choose in (by_model, by_rule))
        times = [node_times(program, ARM64) for program in (chosen, ruled)]
        assert all(times[0][name] <= times[1][name] for name in times[1])
        for step in chosen.steps:
            if isinstance(step.call, RowMajor):
                vectors = step.call.rows // 4
                assert vectors * (1 + np.prod(step.call.tile)) <= ARM64.registers


def test_layers_that_are_modelled_to_be_no_faster_stay_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the plan says of what core that is said, measured or not."""
    ir.save(residual([1, 3, 17, 15], 32), tmp_path / "model.onnx")
    command = ("plan", "model.onnx", "--target", "arm64", "--sparsity", "0.5", "--samples", "10")
    plain = planned(tmp_path, *command)
    slow = next(name for name, layer in plain.items() if layer["pattern"] != "dense")
    calls: list[int] = []

    def times(program: object, isa: Isa) -> dict[str, float]:
        calls.append(1)
        return {name: 12.0 if name == slow and len(calls) == 2 else 10.0 / len(calls) for name in plain}

    monkeypatch.setattr(cost_model, "node_times", times)
    found = planned(tmp_path, *command)
    assert found[slow]["pattern"] == "dense"
    assert found[slow]["why"] == f"no faster with zeros, modelled for {core_for(ARM64).label}: 12.0 µs, dense 10.0 µs"
    assert {name for name, layer in found.items() if layer["pattern"] != "dense"} == {
        name for name, layer in plain.items() if layer["pattern"] != "dense" and name != slow
    }


def planned(folder: Path, *command: str) -> dict[str, dict[str, str]]:
    done = prunec(*command, "-o", "plan.json", cwd=folder)
    assert done.code == 0, done.err
    return {layer["node"]: layer for layer in json.loads((folder / "plan.json").read_text())["layers"]}
