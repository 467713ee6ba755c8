"""What dense models are modelled to take on a stated ARM core: by the formula for products, and by instructions.

    python -m benchmarks.arm64_roofs crepe-tiny efficientnet-lite0 fashion-net [--input-shape input_ids=1,64]
        [--markdown table.md]

Models of the zoo. Steps without a formula get their time from the instructions that qemu counts, by the same roofs; to
say whether the two may be added, products get theirs from counts as well: `ratio` is that over the formula's. **No time
was measured**, and qemu has none to give.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import prunec.models as zoo
from benchmarks.tables import line, markdown
from prunec.api.opening import open_model
from prunec.backends.arm64.artifact import write_folder
from prunec.backends.arm64.counting import step_counts
from prunec.backends.arm64.modelled import rest_us
from prunec.backends.cpu.isa import ARM64
from prunec.backends.cross.cost_model import core_for, counted_us, node_times
from prunec.backends.cross.lowered import bools, lowered
from prunec.frontend.input_shapes import parse_input_shapes


@dataclass
class Row:
    """Modelled microseconds of one run: `products_us` by the formula, `counted_us` of the same steps by counts."""

    model: str
    products_us: float
    counted_us: float
    ratio: float
    rest_us: float
    instructions: int


def row_of(name: str, given: list[str]) -> Row:
    found = zoo.get(name)
    shapes = {**found.entry.static_inputs, **parse_input_shapes(given)}
    ready, program = lowered(open_model(found.path).canonical, ARM64, shapes)
    with tempfile.TemporaryDirectory(prefix="prunec-roofs-") as folder:
        counts = step_counts(write_folder(program, bools(ready), ARM64, Path(folder), name="counted"))
    if counts is None:
        raise SystemExit("qemu takes no plugins here, so nothing is counted")
    core, products = core_for(ARM64), node_times(program, ARM64)
    pairs = zip(program.steps, counts, strict=True)
    counted = sum(
        counted_us(core, **asdict(own)) for step, own in pairs if not products.keys().isdisjoint(step.nodes[:1])
    )
    whole, rest = sum(products.values()), rest_us(program, counts, ARM64) or 0.0
    instructions = sum(own.instructions for own in counts)
    return Row(name, round(whole, 1), round(counted, 1), round(counted / whole, 3), round(rest, 1), instructions)


def main() -> int:
    parser = argparse.ArgumentParser(description="Modelled times on ARM by a formula and by counted instructions.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--input-shape", nargs="+", default=[], help="NAME=1,64 …")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    rows = [row_of(name, arguments.input_shape) for name in arguments.models]
    for row in rows:
        print(line(row), flush=True)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
