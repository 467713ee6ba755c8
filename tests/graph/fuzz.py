"""Random graphs of the operators with channel rules: cut at random, compare sliced with masked.

    python -m tests.graph.fuzz --cases 2000 --seed 0 --kind image

Every case prints its seed when it fails; `--seed S --cases 1` replays it.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from prunec.diagnostics import PrunecError
from prunec.verify.ort_errors import ORT_ERRORS
from tests.graph.checks import assert_exact, prepare
from tests.graph.fuzz_image import Grower
from tests.graph.fuzz_quantised import QuantisedGrower
from tests.graph.fuzz_runtime import RuntimeGrower
from tests.graph.fuzz_sequence import SequenceGrower

GROWERS = {"image": Grower, "sequence": SequenceGrower, "quantised": QuantisedGrower, "runtime": RuntimeGrower}
"""Quantised images; and on sequences ONNX Runtime's own operators, experts and products of integers."""


def check(seed: int, kind: str = "image") -> int:
    """One case; returns how many groups could be cut. Raises AssertionError with the seed."""
    rng = np.random.default_rng([seed, 1])
    model = GROWERS[kind](seed).grow(int(rng.integers(3, 12)))
    canonical, analysis = prepare(model)
    assert_exact(canonical, analysis, seed, share=float(rng.choice([0.25, 0.5, 0.9])))
    return sum(g.pinned is None for g in analysis.groups)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=sorted(GROWERS), default="image")
    arguments = parser.parse_args()
    failed: list[int] = []
    groups = 0
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        try:
            groups += check(seed, arguments.kind)
        except (AssertionError, PrunecError, RuntimeError, ValueError, IndexError, *ORT_ERRORS) as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}")
    print(f"{arguments.cases} cases, {groups} groups cut, {len(failed)} failed: seeds {failed[:20]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
