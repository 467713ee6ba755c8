"""Zeros and cuts inside a training with labels: fashion-net's accuracy on its 10 000 test images, schedule by schedule.

    python -m benchmarks.training [--cases flops@0.25 unstructured@0.9 block:4x1@0.75] [--methods gmp granet …]
        [--epochs 2] [--scratch-epochs N] [--images N] [--test-images N] [--rate 0.05] [--seed 0] [--threads 2]
        [--device cpu] [--keep F.json] [--markdown F]

Every method of a case trains the network that ships with prunec for the same `--epochs` over the training images, in
the same loop (`prunec.models.fashion_net.training`), with a step size that rises to `--rate` and falls as a half
cosine. A case is a pattern with its level, put in by `prunec.torch.Sparsifier` under one schedule per row, or
`flops@S`: whole channels, so that the share S of the multiply-accumulates stays. `one-shot` has all zeros, or its final
width, before the first step. Beside them stand

    dense      the network as it is, trained on for as long: what the training alone changes
    scratch    the shape, or the masks, of the case's one-shot row with fresh weights, for `--scratch-epochs` (as many
               as the others without it) at four times the step size

`start` is the accuracy of what training starts from, `value` that of what it ends with, `drop` what is lost against the
network that ships (`dense`), in points. `macs` and `weights` are the shares that are left, zeros not counted. Rows are
kept one by one (`--keep`): a run that was cut short goes on with the row it was in. `--device cuda` trains on a GPU.
The images are those of the zoo (`prunec zoo get fashion-net` fetches them once, `PRUNEC_CACHE` says where they lie).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.kept import KeptRows
from benchmarks.tables import line, markdown
from benchmarks.training_subject import CUTTING, ONE_SHOT, SCRATCH, Subject
from prunec.patterns import parse
from prunec.patterns.nm import NM

CASES = ("flops@0.25", "unstructured@0.9", "block:4x1@0.75")
DENSE = "dense"
OF_ZEROS = (ONE_SHOT, "gmp", "granet", "imp", "ast", "pdp", SCRATCH)
OF_CHANNELS = (ONE_SHOT, *CUTTING, SCRATCH)


@dataclass
class Row:
    """`minutes` is what the row took on the wall, all in all."""

    case: str
    method: str
    epochs: int
    dense: float
    start: float
    value: float
    drop: float
    macs: float
    weights: float
    minutes: float


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """The dense network first, then case by case."""
    kept = KeptRows(Row, options.keep)

    @cache
    def subject() -> Subject:
        return Subject(options)

    for case, method in [(DENSE, DENSE), *wanted(options.cases, options.methods)]:
        epochs = (options.scratch_epochs or options.epochs) if method == SCRATCH else options.epochs
        about = (options.images, options.test_images, options.rate, options.seed, options.threads, options.device)
        for row in kept.rows((case, method, epochs, *about), lambda: [_row(subject(), case, method, epochs)]):  # noqa: B023
            print(line(row), flush=True)
            yield row


def wanted(cases: Sequence[str], methods: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Cases with methods; soft masks are for single weights only."""
    for case in cases:
        name = case.partition("@")[0]
        has_pdp = name == "unstructured" or (name != "flops" and isinstance(parse(name), NM))
        for method in OF_CHANNELS if name == "flops" else OF_ZEROS:
            if (method != "pdp" or has_pdp) and (methods is None or method in methods):
                yield case, method


def _row(subject: Subject, case: str, method: str, epochs: int) -> Row:
    began = time.monotonic()
    torch.manual_seed(subject.options.seed)
    name, _, level = case.partition("@")
    if method == DENSE:
        found = subject.as_it_is(epochs)
    elif name == "flops":
        found = subject.cut(float(level), method, epochs)
    else:
        found = subject.sparse(name, float(level) if level else None, method, epochs)
    return Row(
        case=case, method=method, epochs=epochs, dense=subject.dense, start=found.start, value=found.value,
        drop=100 * (subject.dense - found.value), macs=found.macs, weights=found.weights,
        minutes=(time.monotonic() - began) / 60,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Accuracy of fashion-net after training with zeros and cuts.")
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--methods", nargs="+", choices=sorted({*OF_ZEROS, *OF_CHANNELS}))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--scratch-epochs", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--test-images", type=int)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found = list(rows(options))
    if options.markdown is not None:
        options.markdown.write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
