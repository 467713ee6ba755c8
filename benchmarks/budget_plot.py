"""Pictures of sweeps: what is lost against the measured speed-up, a line for each way, one SVG file for each model.

Where it is known what other tools reach on the model, they are points beside the lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import prunec.report
from benchmarks.budget_rows import Row
from benchmarks.rivals import POINTS
from prunec.report.curve import Spot, quality_against_speed

STYLE = Path(prunec.report.__file__).with_name("style.css")


def write_plots(rows: Sequence[Row], folder: Path) -> list[Path]:
    """`curve-MODEL-TARGET.svg` for each model and target among the rows that were measured."""
    found: dict[tuple[str, str], dict[str, list[Spot]]] = defaultdict(lambda: defaultdict(list))
    metrics = {row.model: row.metric for row in rows}
    for row in rows:
        if row.share is not None and row.low is not None and row.high is not None and row.drop is not None:
            own = found[row.model, row.target][row.way]
            own.append(Spot(len(own) + 1, 1 / row.share, (1 / row.high, 1 / row.low), row.drop))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for (model, target), curves in found.items():
        path = folder / f"curve-{model}-{target}.svg"
        known = POINTS.get(model, ()) if target == "onnx" else ()
        beside = {point.tool: point[1:] for point in known}
        path.write_text(picture(curves, beside, metrics[model]), encoding="utf-8")
        paths.append(path)
    return paths


def picture(curves: dict[str, list[Spot]], beside: dict[str, tuple[float, float]], metric: str) -> str:
    """A file of its own: with its name space and its colours."""
    opening, rest = str(quality_against_speed(curves, beside, metric=metric)).split(">", 1)
    style = f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>"
    return f'{opening} xmlns="http://www.w3.org/2000/svg">\n{style}{rest}\n'
