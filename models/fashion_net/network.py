"""fashion-net as a torch module: what `train` trains, `finetune` prunes while it trains, and `graph` writes as ONNX."""

from __future__ import annotations

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from prunec.models.fashion_net import SHIPPED
from prunec.models.fashion_net.graph import BLOCKS, STEM

CLASSES = 10


class Block(nn.Module):
    """conv-bn-relu-conv-bn, added to the input (through a 1×1 conv-bn where the shape changes), relu."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.has_skip_conv = stride != 1 or inputs != outputs
        if self.has_skip_conv:
            self.skip_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skip_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        skip = self.skip_bn(self.skip_conv(x)) if self.has_skip_conv else x
        return functional.relu(y + skip)


class FashionNet(nn.Module):
    """[b, 1, 28, 28] → logits [b, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = nn.Conv2d(1, STEM, 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(STEM)
        widths = [STEM] + [width for width, _ in BLOCKS]
        self.blocks = nn.ModuleList(
            Block(before, width, stride) for before, (width, stride) in zip(widths, BLOCKS, strict=False)
        )
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.relu(self.stem_bn(self.stem_conv(image)))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def pretrained() -> FashionNet:
    """The network that ships with prunec, in training mode; fetches nothing."""
    weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(SHIPPED).graph.initializer}
    model = FashionNet()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return model


def initialised_anew(model: nn.Module, seed: int) -> nn.Module:
    """`model`, in place, as if it had just been made: the baseline of the same size that was never trained."""
    torch.manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            part.reset_parameters()
    return model
