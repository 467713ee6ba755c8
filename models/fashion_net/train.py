"""Train fashion-net on Fashion-MNIST and write `fashion_net.onnx` beside this file.

    python -m prunec.models.fashion_net.train --data DIR --epochs 8

A small ResNet: stem 16, then basic blocks 16 (28×28), 48, 48 (14×14), 96, 96 (7×7), mean, Gemm. SGD with Nesterov
momentum, one-cycle learning rate, label smoothing 0.05, random flips and shifts by up to two pixels. Needs torch and
the four `idx` files of Fashion-MNIST in DIR; about 15 minutes on two slow cores. The test images never steer anything:
they are read once, after the last epoch.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunec.models.fashion_net.data import TEST, TRAINING, normalise, read_split
from prunec.models.fashion_net.graph import BLOCKS, STEM, build_model, save_model

HERE = Path(__file__).parent


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
    def __init__(self) -> None:
        super().__init__()
        self.stem_conv = nn.Conv2d(1, STEM, 3, 1, 1, bias=False)
        self.stem_bn = nn.BatchNorm2d(STEM)
        widths = [STEM] + [width for width, _ in BLOCKS]
        self.blocks = nn.ModuleList(
            Block(before, width, stride) for before, (width, stride) in zip(widths, BLOCKS, strict=False)
        )
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem_bn(self.stem_conv(x)))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images and shift the whole batch by up to two pixels (zeros of raw pixels come in)."""
    flip = torch.rand(len(batch), generator=generator) < 0.5
    batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
    dy, dx = (int(d) for d in torch.randint(0, 5, (2,), generator=generator))
    padded = functional.pad(batch, (2, 2, 2, 2), value=float(normalise(np.zeros(1))[0]))
    return padded[:, :, dy : dy + 28, dx : dx + 28]


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        hits = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500), strict=True)
        )
    return hits / len(labels)


def train(data: Path, epochs: int, seed: int) -> FashionNet:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    split = read_split(data, TRAINING)
    images, labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)
    model = FashionNet()
    model.to(memory_format=torch.channels_last)
    batch, steps = 128, epochs * (len(images) // 128)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.2, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        model.train()
        order = torch.randperm(len(images), generator=generator)[: len(images) // batch * batch]
        for index in order.split(batch):
            x = augment(images[index], generator).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(x), labels[index], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * batch / len(order)
        print(f"epoch {epoch + 1}/{epochs}: loss {total:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four idx files")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "fashion_net.onnx")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = train(options.data, options.epochs, options.seed)
    weights = {name: t.numpy() for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_model(build_model(weights), options.out)
    test = read_split(options.data, TEST)
    score = accuracy(model, torch.from_numpy(test.inputs), torch.from_numpy(test.labels))
    print(f"test accuracy {score:.4f}; wrote {options.out}")


if __name__ == "__main__":
    main()
