"""Budgets of time and of quality: what the planner makes of them, beside simpler ways to spread what goes.

    python -m benchmarks.budgets speed fashion-net crepe-tiny --targets onnx cpu --speedups 1.5 2 3
    python -m benchmarks.budgets sweep fashion-net --targets onnx cpu --points 6 --plot FOLDER
    python -m benchmarks.budgets drop fashion-net --targets onnx cpu --drops 0.01
    python -m benchmarks.budgets prediction fashion-net --targets onnx cpu --choices 16
    python -m benchmarks.budgets polish fashion-net --targets onnx cpu --speedups 2 --generations 8
    python -m benchmarks.budgets beside fashion-net --targets cpu --speedups 2 --unseen 1000
        [--ways loss uniform …] [--keep F.json] [--markdown F] [--input-shape input_ids=1,64] [--solver fast]
        [--losses solved] [--samples N] [--test-samples N] [--judged N] [--unseen N] [--seed N] [--no-cache]

Target onnx: whole channels, timed in ONNX Runtime; target cpu: zeros in generated kernels, over the dense model in ONNX
Runtime; target wasm: the same in V8 (Node), over the dense model in the same kernels; target arm64: that for a stated
core, where every time is MODELLED and nothing is measured. Ways of cpu "int8" and "int8 or float32" are
`--precision int8` and `mixed`; a speed-up of 1.01 is what 8 bits give "int8" alone, every layer dense. `share` is the
measured time over the dense model's, with its 95 % interval (processor time of one thread).

speed: every way to spread gets the same measured time, through the same loop; what is left is refitted alike and judged
by the model's own metric on test data. sweep: the same at several times in equal ratios; --plot draws what is lost
against the speed-up, a line for each way. drop: `--max-drop` judges by the metric on the first `--judged` test samples;
`unseen` is the drop on the `--unseen` after them, which nothing has looked at. prediction: predicted times and losses
against those of models that were measured, refitted and judged, a row for each source of losses. polish: what
`--polish` adds. beside: every way to spread zeros at one predicted time, and the error of the outputs on another draw
of the calibration data, over that of the way that a compile takes.

Rows in the file of --keep are not computed again; what they cost to plan is only known of a first run (--no-cache).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.budget_beside import BesideRow, beside_rows
from benchmarks.budget_plot import write_plots
from benchmarks.budget_rows import (
    DropRow,
    PolishRow,
    PredictionRow,
    Row,
    curve_rows,
    drop_row,
    polish_rows,
    prediction_rows,
    speed_rows,
)
from benchmarks.budget_subject import DEFAULT, SWEPT, WAYS, BudgetSubject
from benchmarks.kept import KeptRows
from benchmarks.subject import Subject
from benchmarks.tables import line, markdown
from prunec.cache import default_cache
from prunec.frontend.input_shapes import parse_input_shapes
from prunec.plan.levels import SOURCES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

KINDS: dict[str, type[DataclassInstance]] = {
    "speed": Row,
    "sweep": Row,
    "drop": DropRow,
    "prediction": PredictionRow,
    "polish": PolishRow,
    "beside": BesideRow,
}


class Table:
    """The rows of one model, which is only loaded where a row is missing."""

    def __init__(self, name: str, arguments: argparse.Namespace, kept: KeptRows[DataclassInstance]) -> None:
        self.name, self.arguments, self.kept = name, arguments, kept
        self._subjects: dict[str, Subject] = {}
        self._own: dict[str, BudgetSubject] = {}

    def rows(self) -> Iterator[DataclassInstance]:
        a = self.arguments
        for target in a.targets:
            if a.what == "drop":
                for allowed in a.drops:
                    case = (allowed, a.judged, a.unseen, *([] if a.losses else [DEFAULT]))
                    yield from self._rows(target, case, lambda own, n=allowed: [drop_row(own, n, a.judged, a.unseen)])
            elif a.what == "prediction":
                yield from self._rows(target, (a.choices,), lambda own: prediction_rows(own, a.choices))
            elif a.what == "polish":
                case = (*a.speedups, a.generations)
                yield from self._rows(target, case, lambda own: polish_rows(own, a.speedups, a.generations))
            elif a.what == "beside":
                for asked in a.speedups:
                    yield from self._rows(
                        target, (asked, a.unseen), lambda own, n=asked: list(beside_rows(own, n, a.unseen))
                    )
            else:
                ways = WAYS if a.what == "speed" else SWEPT
                for way in (way for way in ways[target] if not a.ways or way in a.ways):
                    case = (way, *(a.speedups if a.what == "speed" else (a.points,)))
                    yield from self._rows(target, case, partial(self._way, way))

    def _way(self, way: str, own: BudgetSubject) -> Iterator[Row]:
        a = self.arguments
        return speed_rows(own, way, a.speedups) if a.what == "speed" else curve_rows(own, way, a.points)

    def _rows(
        self,
        target: str,
        case: Iterable[object],
        compute: Callable[[BudgetSubject], Iterable[DataclassInstance]],
    ) -> list[DataclassInstance]:
        a = self.arguments
        drawn = (a.solver, a.samples, a.test_samples, a.seed, *a.input_shape, *([a.losses] if a.losses else []))
        return self.kept.rows((a.what, self.name, target, *case, *drawn), lambda: compute(self._subject(target)))

    def _subject(self, target: str) -> BudgetSubject:
        a = self.arguments
        if target not in self._own:
            subject = Subject(
                self.name, samples=a.samples, test_samples=a.test_samples, seed=a.seed, is_sparse=target != "onnx"
            )
            shapes = {**subject.found.entry.static_inputs, **parse_input_shapes(a.input_shape)}
            cache = None if a.no_cache else default_cache()
            self._own[target] = BudgetSubject(
                subject, target, shapes=shapes, solver=a.solver, losses=a.losses, cache=cache
            )
        return self._own[target]


def main() -> int:
    parser = argparse.ArgumentParser(description="Budgets of time and of quality.")
    parser.add_argument("what", choices=list(KINDS))
    parser.add_argument("models", nargs="+")
    parser.add_argument("--targets", nargs="+", default=["onnx"], choices=list(WAYS))
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--ways", nargs="+", default=[], help="ways to spread what goes (default: all of the target)")
    parser.add_argument("--drops", type=float, nargs="+", default=[0.01])
    parser.add_argument("--choices", type=int, default=16, help="models that predictions are compared with")
    parser.add_argument("--generations", type=int, default=8, help="of swaps, one refitted model each")
    parser.add_argument("--judged", type=int, default=1000, help="test samples that --max-drop may look at")
    parser.add_argument("--unseen", type=int, default=2000, help="more of them, to tell what it is worth")
    parser.add_argument("--solver", help="how much work goes into zeros (default: balanced)")
    parser.add_argument("--losses", choices=SOURCES, help="where losses of zeros come from (default: the planner's)")
    parser.add_argument("--samples", type=int, help="calibration samples (default: by the cost)")
    parser.add_argument("--test-samples", type=int, help="test samples of the metric (default: the metric's own)")
    parser.add_argument("--input-shape", nargs="+", default=[], help="of what is timed: NAME=1,64 …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-cache", action="store_true", help="nothing from earlier runs, so that minutes are whole")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="of a sweep: a picture for each model and target")
    arguments = parser.parse_args()
    unknown = set(arguments.ways) - {way for own in WAYS.values() for way in own}
    if unknown:
        parser.error(f"no such way: {', '.join(sorted(unknown))}")
    if arguments.what == "beside" and "onnx" in arguments.targets:
        parser.error("beside is about zeros: --targets cpu, wasm or arm64")
    kept = KeptRows(KINDS[arguments.what], arguments.keep)
    rows: list[DataclassInstance] = []
    for name in arguments.models:
        for row in Table(name, arguments, kept).rows():
            print(line(row), flush=True)
            rows.append(row)
            if arguments.markdown:
                arguments.markdown.write_text(markdown(rows), encoding="utf-8")
            if arguments.plot and arguments.what == "sweep":
                write_plots([row for row in rows if isinstance(row, Row)], arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
