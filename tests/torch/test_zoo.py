"""Every zoo model as a torch module: ONNX Runtime's numbers, and a gradient for every parameter.

Needs the package indexes once; afterwards the cache answers. Models with data see it; the others get noise.
"""

from __future__ import annotations

import importlib

import numpy as np
import onnx_ir as ir
import pytest

import prunec.models
from prunec.models.catalogue import ENTRIES, ZooEntry
from prunec.passes.canonicalise import canonicalise
from tests.graph.checks import relative_error, run

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

FEEDS = {
    "silero-vad": {"input": (2, 512), "state": (2, 2, 128)},
    "silero-vad-16k": {"input": (2, 512), "state": (2, 2, 128)},
    "nudenet": {"images": (2, 3, 320, 320)},
    "ddddocr": {"input1": (1, 1, 64, 160)},
}


def feeds_of(entry: ZooEntry, model: ir.Model) -> dict[str, np.ndarray]:
    if entry.dense and not entry.needs:
        batch = next(iter(importlib.import_module(entry.module).calibration(1, 0)))
        return {name: np.concatenate([value, value]) for name, value in batch.items()}
    rng = np.random.default_rng(0)
    found = {}
    for value in model.graph.inputs:
        name, dtype = str(value.name), np.dtype(value.dtype.numpy())  # type: ignore[union-attr]
        static = entry.static_inputs.get(name)
        named = [d if isinstance(d, int) else 2 for d in value.shape or ()]
        shape = FEEDS.get(entry.name, {}).get(name) or ((2, *static[1:]) if static else tuple(named))
        if name == "sr":
            found[name] = np.array(16000, dtype)
        elif dtype.kind == "f":
            found[name] = rng.standard_normal(shape).astype(dtype)
        else:
            found[name] = rng.integers(0, 256, shape).astype(dtype)
    return found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_zoo_models_agree_and_have_gradients(entry: ZooEntry) -> None:
    from prunec.torch.from_ir import to_graph_module

    model = canonicalise(ir.load(prunec.models.get(entry.name).path))
    feeds = feeds_of(entry, model)
    module = to_graph_module(model)
    found = module(*[torch.from_numpy(feeds[str(value.name)]) for value in model.graph.inputs])
    outputs = list(found) if isinstance(found, tuple) else [found]
    error = relative_error(run(model, feeds), [y.detach().numpy() for y in outputs])
    assert error <= 3e-4, f"{error:.1e}"
    sum(y.float().square().sum() for y in outputs if y.is_floating_point()).backward()
    used = {n for n, p in module.named_parameters() if p.grad is not None}
    unused = {n for n, _ in module.named_parameters()} - used
    assert not unused or "otherwise" in " ".join(unused), f"no gradient: {sorted(unused)[:5]}"
