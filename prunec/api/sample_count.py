"""How many calibration samples are used where nobody says how many."""

from __future__ import annotations

import onnx_ir as ir

from prunec.backends.onnx.session import make_session, run
from prunec.frontend.calibration import HELD_OUT, Samples, open_calibration
from prunec.graph.cost import model_macs
from prunec.graph.shapes import dims
from prunec.passes.compensate.find import find_layers
from prunec.passes.compensate.layers import Layer
from prunec.verify.bounds import samples_for

CALIBRATION_MACS, SPARSE_MACS = 250e9, 750e9
"""Of one forward pass over the calibration data. Masks and the weights under them are fitted to it, and need more."""
FEWEST_SAMPLES, MOST_SAMPLES, MOST_SPARSE_SAMPLES = 128, 1024, 4096

MORE_FOR_DROP = 4


def default_samples(model: ir.Model, calib: Samples = None, *, is_sparse: bool = False) -> int:
    """As many samples as a few seconds of forward passes allow: small models need the most and can afford them.

    For sparsity patterns (`is_sparse`) more, dynamic axes being as long as in the first sample of `calib`; not where
    inputs are made up, or no file or function says how long they are.
    """
    is_dynamic = any(not isinstance(d, int) for value in model.graph.inputs for d in (dims(value) or ())[1:])
    if not is_sparse or calib is None or (is_dynamic and not isinstance(calib, str)):
        return min(max(int(CALIBRATION_MACS / max(model_macs(model), 1)), FEWEST_SAMPLES), MOST_SAMPLES)
    macs = sample_macs(model, calib) if is_dynamic and isinstance(calib, str) else model_macs(model)
    return min(max(int(SPARSE_MACS / max(macs, 1)), FEWEST_SAMPLES), MOST_SPARSE_SAMPLES)


def samples_for_drop(samples: int, drop: float) -> int:
    """`samples`, or up to `MORE_FOR_DROP` times as many: what is held out of them should rule out such a drop."""
    return max(samples, min(HELD_OUT * (samples_for(drop) or 0), MORE_FOR_DROP * samples))


def sample_macs(model: ir.Model, calib: str) -> int:
    """Multiply-accumulates that the layers spend on the first sample, from one run with it."""
    feeds = next(open_calibration(calib, model, samples=2, demanded=False).fit())
    layers = [layer for layer in find_layers(model)[0] if isinstance(layer, Layer)]
    names = {layer.name: layer.node.outputs[0].name or "" for layer in layers}
    found = run(make_session(model, threads=1, outputs=sorted(set(names.values()))), feeds)
    macs = sum(layer.position_count(found[names[layer.name]].shape) * layer.matrix().size for layer in layers)
    return macs // max(len(next(iter(feeds.values()))), 1)
