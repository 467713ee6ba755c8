"""The groups of a module are those of the files that both of torch's exporters write for it.

Compared are, over all parameters that both graphs hold under one name, the sets of (parameter, axis, channels) that
belong together, free and pinned ones apart.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from prunec.graph import Analysis, analyse
from prunec.passes.canonicalise import canonicalise
from tests.torch.modules import MODULES, make

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_registry")]

Partition = set[tuple[bool, int, frozenset[tuple[str, int]]]]


def partition(analysis: Analysis, names: set[str]) -> Partition:
    """(free, size, members) of every group with a member among `names`; groups of the same members are merged."""
    found: dict[tuple[bool, frozenset[tuple[str, int]]], int] = {}
    for group in analysis.groups:
        members = frozenset((m.tensor, m.axis) for m in group.members if m.tensor in names)
        if members:
            key = (group.pinned is None, members)
            found[key] = found.get(key, 0) + group.size
    return {(free, size, members) for (free, members), size in found.items()}


def opened(model: ir.Model) -> tuple[ir.Model, Analysis]:
    canonical = canonicalise(model)
    return canonical, analyse(canonical)


def exported(module: Any, example: Any, dynamo: bool) -> ir.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            model: ir.Model = torch.onnx.export(module, (example,), dynamo=True, verbose=False).model
            return model
        file = io.BytesIO()
        torch.onnx.export(module, (example,), file, dynamo=False, do_constant_folding=True)
        return ir.from_proto(onnx.load_from_string(file.getvalue()))


NOT_SCRIPTED = {"encoder_layer"}  # torch's older exporter fails on it
UNTIED = {"tied"}  # both exporters write the shared table twice, the module frontend keeps it one tensor


QUICK = "einsum lstm_both packed pixel_shuffle residual shared_heads shuffle tied".split()
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MODULES]


@pytest.mark.parametrize("name", CASES)
def test_groups_are_those_of_both_exporters(name: str) -> None:
    from prunec.frontend.torch import load_module

    module, example = make(name)
    own, analysis = opened(load_module(module, example).model)
    free = [group.size for group in analysis.groups if group.pinned is None]
    assert free, "nothing of this module could be cut"
    compared = 0
    for dynamo in (True, False) if name not in NOT_SCRIPTED else (True,):
        other, other_analysis = opened(exported(module, example, dynamo))
        both = set(own.graph.initializers) & set(other.graph.initializers) & set(module.state_dict())
        mine, others = partition(analysis, both), partition(other_analysis, both)
        if name in UNTIED:
            mine, others = ({group for group in groups if group[0]} for groups in (mine, others))
        assert mine == others, f"dynamo={dynamo}"
        assert sorted(free) == sorted(g.size for g in other_analysis.groups if g.pinned is None), f"dynamo={dynamo}"
        compared += len(mine)
    assert compared or "einsum" in name
