"""Train fashion-lstm on Fashion-MNIST and write `fashion_lstm.onnx` beside this file.

    python -m prunec.models.fashion_lstm.train --data DIR --epochs 8

Two bidirectional layers of 96 units over the 28 rows, mean over time, Gemm. AdamW, one-cycle learning rate, label
smoothing 0.05, dropout 0.2 between the layers and before the head, flips and shifts as fashion-net has them. Needs
torch and the four `idx` files of Fashion-MNIST in DIR; about 15 minutes on one slow core. `--cell gru` trains the same
network of GRU cells. The test images never steer anything: they are read once, after the last epoch.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunec.models.fashion_lstm.graph import HIDDEN, LAYERS, SIDE, Cell, build_model, from_torch, save_model
from prunec.models.fashion_net.data import TEST, TRAINING, read_split
from prunec.models.fashion_net.training import accuracy, augment

HERE = Path(__file__).parent
DROPOUT = 0.2


class RowReader(nn.Module):
    """Reads an image [b, 1, 28, 28] as 28 steps of 28 values."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn = kind(SIDE, HIDDEN, LAYERS, dropout=DROPOUT, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, 10)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x.squeeze(1).transpose(0, 1))
        features = functional.dropout(y.mean(0), DROPOUT, self.training)
        logits: Tensor = self.head(features)
        return logits


def train(data: Path, cell: Cell, epochs: int, seed: int) -> RowReader:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    split = read_split(data, TRAINING)
    images, labels = torch.from_numpy(split.inputs), torch.from_numpy(split.labels)
    model = RowReader(cell)
    batch, steps = 128, epochs * (len(images) // 128)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        model.train()
        order = torch.randperm(len(images), generator=generator)[: len(images) // batch * batch]
        for index in order.split(batch):
            logits = model(augment(images[index], generator))
            loss = functional.cross_entropy(logits, labels[index], label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * batch / len(order)
        print(f"epoch {epoch + 1}/{epochs}: loss {total:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four idx files")
    parser.add_argument("--cell", choices=["lstm", "gru"], default="lstm")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: fashion_CELL.onnx beside this file")
    options = parser.parse_args()
    out = options.out or HERE / f"fashion_{options.cell}.onnx"
    torch.set_num_threads(options.threads)
    model = train(options.data, options.cell, options.epochs, options.seed)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    save_model(build_model(from_torch(weights, options.cell), options.cell), out)
    score = accuracy(model, read_split(options.data, TEST))
    print(f"test accuracy {score:.4f}; wrote {out}")


if __name__ == "__main__":
    main()
