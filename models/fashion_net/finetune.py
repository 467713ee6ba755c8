"""The whole way with labels: train → plan → put zeros in while training on → compile → measure.

    python -m prunec.models.fashion_net.finetune -o out --pattern block:4x1 --sparsity 0.75 [--target onnx]
        [--schedule gmp] [--epochs 2] [--dense-epochs 0] [--rate 0.05] [--images N] [--threads 2] [--seed 0]

It starts from the network that ships with prunec, or from nothing where `--dense-epochs` says so. What is particular to
prunec are four calls: `prunec.plan` chooses layers and levels for the target, `prunec.torch.Sparsifier` hooks into the
optimiser of an ordinary loop (`training.fit`, which knows nothing of it), `finalize` checks the zeros, and
`prunec.compile` proves, judges on the test images and measures. `--target cpu` (the extra [tvm]) has kernels that skip
blocks of zeros; in ONNX Runtime zeros save no time, and the package says so. The test images steer nothing.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import prunec
import prunec.torch
from prunec.api.results import Compiled
from prunec.models.fashion_net.data import TEST, TRAINING, Images, load
from prunec.models.fashion_net.network import FashionNet, pretrained
from prunec.models.fashion_net.training import accuracy, cycles, fit, sgd, steps_of

METRIC = "prunec.models.fashion_net:metric"
FIRST_RATE = 0.2
"""Of a network that starts from nothing."""
CALIBRATION = 64


def main(arguments: Sequence[str] | None = None) -> Compiled:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--target", default="onnx")
    parser.add_argument("--pattern", required=True)
    parser.add_argument("--sparsity", type=float, help="of patterns that do not say it themselves, as 2:4 does")
    parser.add_argument("--schedule", default="gmp")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--dense-epochs", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--images", type=int, help="training images; all 60 000 without it")
    parser.add_argument("--metric", default=METRIC)
    parser.add_argument("--no-measure", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    whole, test = load(TRAINING), load(TEST)
    data = Images(whole.inputs[: options.images], whole.labels[: options.images])
    generator = torch.Generator().manual_seed(options.seed)

    def train(optimiser: torch.optim.Optimizer, epochs: int) -> None:
        rate = cycles(optimiser, steps_of(len(data.labels), epochs))
        fit(model, data, optimiser, rate, epochs, generator, lambda text: print(text, flush=True))

    # 1. a trained network
    model = FashionNet() if options.dense_epochs else pretrained()
    model.to(memory_format=torch.channels_last)
    if options.dense_epochs:
        train(sgd(model, FIRST_RATE), options.dense_epochs)
    dense = accuracy(model, test)
    print(f"dense: accuracy {dense:.4f}", flush=True)

    # 2. which layers get which zeros on this target
    example, images = torch.from_numpy(data.inputs[:1]), torch.from_numpy(data.inputs[:CALIBRATION])
    plan = prunec.plan(
        model, example_inputs=example, target=options.target, pattern=options.pattern, sparsity=options.sparsity,
        calib=images, permute=False, seed=options.seed,
    ).plan  # fmt: skip

    # 3. the loop as it was: the sparsifier works in the optimiser's hooks
    optimiser, steps = sgd(model, options.rate), steps_of(len(data.labels), options.epochs)
    sparsifier = prunec.torch.Sparsifier(
        model, optimiser, plan, options.schedule, steps=steps, example_inputs=example
    )  # fmt: skip
    train(optimiser, options.epochs)
    done = sparsifier.finalize()
    print(f"{sparsifier.sparsity:.0%} zeros: accuracy {accuracy(model, test):.4f}", flush=True)

    # 4. a package that is proved, judged and measured
    with TemporaryDirectory() as folder:
        done.plan.save(Path(folder, "plan.json"))
        found = prunec.compile(
            done.module.eval(), example_inputs=example, plan=Path(folder, "plan.json"), target=options.target,
            calib=images, metric=options.metric, measure=not options.no_measure, output=options.output,
            force=options.force,
        )  # fmt: skip
    assert found.verification is not None and found.verification.quality is not None
    print(f"{options.output}: accuracy {found.verification.quality.pruned:.4f}, dense {dense:.4f}")
    for name, speedup in (found.measurements.speedup if found.measurements is not None else {}).items():
        print(f"speed-up {name}: {speedup.median:.2f} ({speedup.ci95[0]:.2f} to {speedup.ci95[1]:.2f})")
    return found


if __name__ == "__main__":
    main()
