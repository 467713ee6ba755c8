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
from pathlib import Path

import torch

from prunec.models.fashion_net.data import TEST, TRAINING, read_split
from prunec.models.fashion_net.graph import build_model, save_model
from prunec.models.fashion_net.network import FashionNet
from prunec.models.fashion_net.training import accuracy, fit, sgd, steps_of

HERE = Path(__file__).parent


def train(data: Path, epochs: int, seed: int) -> FashionNet:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    split = read_split(data, TRAINING)
    model = FashionNet()
    model.to(memory_format=torch.channels_last)
    optimiser, steps = sgd(model, 0.1), steps_of(len(split.labels), epochs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.2, total_steps=steps, pct_start=0.2)
    fit(model, split, optimiser, schedule, epochs, generator, lambda text: print(text, flush=True))
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
    score = accuracy(model, read_split(options.data, TEST))
    print(f"test accuracy {score:.4f}; wrote {options.out}")


if __name__ == "__main__":
    main()
