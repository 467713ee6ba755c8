"""Analyse, cut and check every graph of a folder: groups, pins, what is left at a given ratio, and exactness.

    python -m benchmarks.graphs FOLDER [--ratio 0.5] [--only 'tv_*'] [--speed] [--markdown table.md]

Per graph: canonicalise, find the groups, cut `ratio` of every group that is free (random channels, seeded), and prove
the cut as every compile does: cut against masked dense model, float32 ≤ 1e-5 of the output range; float64 ≤ 1e-12 where
it is affordable, and there it decides. `pinned`: groups by the code of what pins them; `why`: the most frequent reasons
and how often each is given. `heads`: attentions whose heads are free, of all attentions; `ffn`: free hidden layers of
feed-forward blocks. `--speed`: dense over cut in ONNX Runtime on one thread, with a 95 % interval; give it the machine
alone. Exit code 1 if any graph fails, or has an attention whose heads cannot be cut.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.graph_files import graph_files, read_graph
from benchmarks.tables import line, markdown
from benchmarks.transformer_blocks import attentions, feed_forwards
from prunec.backends.onnx.session import make_session, run
from prunec.graph import Analysis, analyse
from prunec.graph.cost import model_macs, parameter_count
from prunec.measure.contender import Contender
from prunec.measure.run import measure
from prunec.passes.canonicalise import canonicalise
from prunec.passes.slice_channels import slice_channels
from prunec.verify.exactness import prove
from prunec.verify.inputs import first_that_runs
from prunec.verify.ort_errors import ORT_ERRORS

# Share of parameters that Torch-Pruning 1.6.1 keeps at 50 % of the channels (measured once, same networks).
TORCH_PRUNING = {
    "tv_resnet18": 0.26,
    "tv_resnet50": 0.27,
    "tv_mobilenet_v2": 0.35,
    "tv_densenet121": 0.29,
    "tv_vgg11_bn": 0.26,
    "tv_efficientnet_b0": 0.32,
}


BLOCKS, PROCESSES = 12, 2
"""Pairs of blocks, in so many generations of processes: some seconds per graph."""


@dataclass
class Row:
    graph: str
    nodes: int
    canonicalise_s: float
    analyse_s: float
    groups: int
    free: int
    pinned: str
    why: str
    heads: str
    ffn: int
    params_kept: float
    macs_kept: float
    torch_pruning: float | None
    float32: float
    float64: float | None
    speed: str | None = None


def cut_half(analysis: Analysis, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Class mask that removes floor(ratio · size) random channels of every free group."""
    keeps = {}
    for group in analysis.groups:
        if group.pinned is None and group.size > 1:
            keep = np.ones(group.size, bool)
            keep[rng.choice(group.size, min(int(group.size * ratio), group.size - 1), replace=False)] = False
            keeps[group.id] = keep
    alive = analysis.alive(keeps)
    while empty := analysis.empty_axes(alive):
        for ids in empty:
            alive[rng.choice(ids)] = True
    return alive


def reasons(model: ir.Model, analysis: Analysis, most: int = 3) -> str:
    """The most frequent reasons of the pinned groups, without the names in them: "… ×n"."""
    names = {value.name for node in model.graph for value in [*node.inputs, *node.outputs] if value is not None}
    found: Counter[str] = Counter()
    for group in analysis.groups:
        if group.pinned is not None:
            words = ["…" if word.strip(",") in names else word for word in group.pinned.reason.split()]
            found[" ".join(words)] += 1
    return "; ".join(f"{reason} ×{n}" for reason, n in found.most_common(most))


def speed(dense: ir.Model, cut: ir.Model, seed: int) -> str:
    """Dense over cut with its 95 % interval, by the protocol of `prunec.measure` (short: see `BLOCKS`)."""
    session = make_session(dense, threads=1)
    feeds = first_that_runs(dense, functools.partial(run, session), seed, ORT_ERRORS)
    del session
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.onnx" for name in ("dense", "cut")]
        for model, path in zip((dense, cut), paths, strict=True):
            ir.save(model, path, external_data=f"{path.name}.data")
        contenders = [Contender("dense_onnxruntime", paths[0]), Contender("pruned_onnxruntime", paths[1])]
        found = measure(contenders, feeds, threads=1, blocks=BLOCKS, processes=PROCESSES, warmup_s=0.2, seed=seed)
    speedup = found.speedup["vs_dense_onnxruntime"]
    return "{:.2f} ({:.2f} to {:.2f})".format(speedup.median, *speedup.ci95)


def examine(path: Path, ratio: float, seed: int, *, measure_speed: bool = False) -> Row:
    model = read_graph(path)
    start = time.perf_counter()
    canonical = canonicalise(model)
    canonicalised = time.perf_counter()
    analysis = analyse(canonical)
    analysed = time.perf_counter()
    rng = np.random.default_rng(seed)
    alive = cut_half(analysis, ratio, rng)
    cut = slice_channels(canonical, analysis, alive)
    outcome = prove(canonical, analysis, alive, cut_model=cut, seed=seed, random_keeps=0)[0]
    blocks = attentions(canonical, analysis)
    codes = Counter(g.pinned.code for g in analysis.groups if g.pinned is not None)
    name = path.name.split(".")[0]
    return Row(
        graph=name,
        nodes=len(canonical.graph),
        canonicalise_s=canonicalised - start,
        analyse_s=analysed - canonicalised,
        groups=len(analysis.groups),
        free=sum(g.pinned is None for g in analysis.groups),
        pinned=" ".join(f"{code}×{n}" for code, n in sorted(codes.items())),
        why=reasons(canonical, analysis),
        heads=f"{sum(bool(block.heads) for block in blocks)}/{len(blocks)}" if blocks else "–",
        ffn=len(feed_forwards(canonical, analysis)),
        params_kept=parameter_count(cut) / max(parameter_count(canonical), 1),
        macs_kept=model_macs(cut) / max(model_macs(canonical), 1),
        torch_pruning=TORCH_PRUNING.get(name),
        float32=outcome.float32,
        float64=outcome.float64,
        speed=speed(canonical, cut, seed) if measure_speed else None,
    )


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.2f}"
    return str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description="Analyse, cut and check every graph of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the channels of every free group to cut")
    parser.add_argument("--only", default="*", help="file name pattern")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", action="store_true", help="time dense and cut in ONNX Runtime")
    parser.add_argument("--markdown", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    rows: list[Row] = []
    failed = 0
    for path in graph_files(arguments.folder):
        if not fnmatch.fnmatch(path.name, arguments.only + "*"):
            continue
        try:
            row = examine(path, arguments.ratio, arguments.seed, measure_speed=arguments.speed)
        except Exception as error:  # noqa: BLE001 - one broken graph must not hide the others; it is counted below
            print(f"{path.name}: FAILED: {type(error).__name__}: {str(error)[:200]}", flush=True)
            failed += 1
            continue
        rows.append(row)
        if row.heads != "–" and len(set(row.heads.split("/"))) > 1:
            print(f"{path.name}: FAILED: only {row.heads} attentions have heads that can be cut", flush=True)
            failed += 1
        print(line(row, _cell), flush=True)
    print(f"{len(rows)} graphs examined, {failed} failed (seed {arguments.seed})")
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows, _cell), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
