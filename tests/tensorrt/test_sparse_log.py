"""Both wordings of TensorRT's log, the engine inspector, and what is said when nothing was picked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunec.backends.tensorrt.scripts.sparse_log import Said, main, outcome, read_layers, read_log, sentence

OLD = """\
[08/05/2024-12:06:54] [I] [TRT] Total Host Persistent Memory: 160
[08/05/2024-12:06:54] [I] [TRT] (Sparsity) Layers eligible for sparse math: conv1 + relu1, conv2, fc
[08/05/2024-12:06:54] [I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers: conv1 + relu1
"""
OLD_NONE = """\
[I] [TRT] (Sparsity) Layers eligible for sparse math: conv1
[I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers:
"""
NEW = """\
[I] [TRT] (Sparsity) Found 5 layer(s) eligible to use sparse tactics
[I] [TRT] (Sparsity) Chose 5 layer(s) using sparse tactics
[V] [TRT] a second pass, whose lines are the engine's
[I] [TRT] (Sparsity) Found 39 layer(s) eligible to use sparse tactics: conv1, conv2 + add, fc
[I] [TRT] (Sparsity) Chose 2 layer(s) using sparse tactics: conv2 + add, fc
"""
NEW_NONE = """\
[I] [TRT] (Sparsity) Found 39 layer(s) eligible to use sparse tactics
[I] [TRT] (Sparsity) Chose 0 layer(s) using sparse tactics
"""
PLANNED = ["conv1", "conv2", "fc"]
LAYERS = json.dumps(
    {
        "Layers": [
            {"Name": "conv1 + relu1", "TacticName": "sm80_xmma_fprop_sparse_conv_f16f16_tilesize128x128x64"},
            {
                "Name": "fused",
                "Metadata": "[ONNX Layer: conv2]\x1e[ONNX Layer: add]",
                "TacticName": "ampere_h16816gemm",
            },
            {"Name": "fc", "TacticName": "sm80_xmma_spgemm_f16_tn"},
        ],
        "Bindings": ["x", "y"],
    }
)


def test_the_old_wording_names_layers() -> None:
    eligible, chosen = read_log(OLD)
    assert eligible == Said(3, ("conv1 + relu1", "conv2", "fc")) and chosen == Said(1, ("conv1 + relu1",))
    found = outcome(PLANNED, eligible, chosen)
    assert (found.sparse, found.kept_dense, found.unknown) == (("conv1",), ("conv2", "fc"), ())
    assert sentence(found) == "TensorRT runs 1 of 3 eligible layers on sparse kernels."


def test_the_new_wording_gives_numbers_and_the_last_pass_counts() -> None:
    eligible, chosen = read_log(NEW)
    assert eligible is not None and chosen is not None and (eligible.count, chosen.count) == (39, 2)
    assert outcome(PLANNED, eligible, chosen).sparse == ("conv2", "fc")


@pytest.mark.parametrize("log", [OLD_NONE, NEW_NONE])
def test_nothing_picked_is_a_result(log: str) -> None:
    found = outcome(PLANNED, *read_log(log))
    assert not found.has_sparse_kernels and found.kept_dense == tuple(PLANNED)
    assert sentence(found).startswith("TensorRT kept dense: 0 of ")


def test_numbers_alone_leave_layers_unknown_until_the_inspector_says() -> None:
    eligible, chosen = Said(3, ()), Said(2, ())
    assert outcome(PLANNED, eligible, chosen).unknown == tuple(PLANNED)
    found = outcome(PLANNED, eligible, chosen, read_layers(LAYERS))
    assert (found.sparse, found.kept_dense, found.unknown) == (("conv1", "fc"), ("conv2",), ())
    assert found.tactics["fc"] == "sm80_xmma_spgemm_f16_tn"


def test_where_the_log_is_silent_the_inspector_counts_planned_layers() -> None:
    found = outcome(PLANNED, None, None, read_layers(LAYERS))
    assert sentence(found) == "TensorRT runs 2 of 3 planned layers on sparse kernels."


def test_an_engine_without_details_names_no_tactic() -> None:
    (kernel,) = read_layers(json.dumps({"Layers": ["conv1 + relu1"]}))
    assert kernel.nodes == ("conv1", "relu1") and kernel.is_sparse is None
    with pytest.raises(ValueError, match="no list of layers"):
        read_layers("{}")


def test_dense_tactics_are_not_taken_for_sparse_ones() -> None:
    names = ["sm80_xmma_gemm_f16f16_f16f32", "ampere_scudnn_128x64_relu", "cask_dispatcher"]
    kernels = read_layers(json.dumps({"Layers": [{"Name": n, "TacticName": n} for n in names]}))
    assert [kernel.is_sparse for kernel in kernels] == [False, False, False]


@pytest.mark.parametrize(("log", "code"), [(OLD, 0), (NEW, 0), (OLD_NONE, 1), (NEW_NONE, 1), ("nothing", 2)])
def test_the_script_says_so_by_its_exit_code(
    log: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "build.log").write_text(log)
    (tmp_path / "sparsity.json").write_text(json.dumps({"planned": PLANNED}))
    arguments = [str(tmp_path / "build.log"), "--planned", str(tmp_path / "sparsity.json")]
    assert main(arguments) == code
    assert capsys.readouterr().out.startswith(("TensorRT", "The log says nothing"))
    assert main([*arguments, "--json"]) == code
    assert set(json.loads(capsys.readouterr().out)) >= {"eligible", "chosen", "sparse", "kept_dense"}
