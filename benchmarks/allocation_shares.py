"""What an allocation of zeros leaves to compute: the same share of weights, but not of multiply-accumulates.

    python -m benchmarks.allocation_shares fashion-net crepe-tiny efficientnet-lite0 minilm-l6 [--sparsity 0.7]
        [--pattern unstructured] [--allocations uniform erk lamp global loss] [--samples N] [--markdown F]

`macs`: of the layers that have the pattern, on weights that are no zeros; `least`, `most`: density of a layer. Nothing
is solved; only `loss` looks at data. Shapes have to be known: where lengths are dynamic, they count as one.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import prunec.models as zoo
from benchmarks.tables import line, markdown
from prunec.api.levels import allocate_levels
from prunec.api.opening import open_model
from prunec.api.options import PlanOptions
from prunec.api.progress import silent
from prunec.frontend.calibration import open_calibration
from prunec.graph.cost import node_macs
from prunec.patterns import parse
from prunec.plan.layers import DENSE, choose_layers
from prunec.plan.levels import ALLOCATIONS, Allocation


@dataclass
class Row:
    model: str
    pattern: str
    zeros: float
    allocation: str
    macs: float
    least: float
    most: float


def row(name: str, text: str, share: float, allocation: Allocation, samples: int) -> Row:
    found = zoo.get(name)
    canonical, pattern = open_model(found.path).canonical, parse(text)
    calibration = open_calibration(found.calib, canonical, samples=samples)
    plans = choose_layers(canonical, pattern, pattern.level(share))
    mean = pattern.mean_level(share)
    plans = allocate_levels(plans, canonical, pattern, allocation, mean, calibration, PlanOptions(), silent)
    density = {plan.node: 1 - plan.level for plan in plans if plan.pattern != DENSE}
    macs = {node.name or "": node_macs(node) for node in canonical.graph if node.name in density}
    left = sum(macs[node] * own for node, own in density.items()) / sum(macs.values())
    return Row(name, pattern.name, mean, allocation, left, min(density.values()), max(density.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Multiply-accumulates that allocations of zeros leave.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--pattern", default="unstructured")
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--allocations", nargs="+", default=["uniform", "erk", "lamp", "global"], choices=ALLOCATIONS)
    parser.add_argument("--samples", type=int, default=32, help="calibration samples, for loss only")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    table: list[Row] = []
    for name in arguments.models:
        for allocation in arguments.allocations:
            table.append(row(name, arguments.pattern, arguments.sparsity, allocation, arguments.samples))
            print(line(table[-1]), flush=True)
            if arguments.markdown:
                arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
