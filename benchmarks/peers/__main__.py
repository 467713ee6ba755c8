"""prunec beside other tools on the same models, data and metric, one table.

    python -m benchmarks.peers fashion-net minilm-l6 [--peers prunec onnxsim modelopt llm-compressor torch-pruning]
        [--cases 2:4 unstructured@0.5 channels@0.3 channels@0.5] [--methods sparsegpt …] [--seeds 0 1 2] [--samples N]
        [--test-samples N] [--limit SECONDS] [--keep F.json] [--markdown F]

Each peer gets an environment of its own in prunec's cache (pip, pinned versions, made once; torch is large), the file
of the model, the calibration samples and a limit of processor time and memory. What it writes is judged here, as ours
is (`score`). Zeros are judged a second time with stem, depthwise convolutions and head dense, as in a
compile of prunec. What fails is a row with its reason. No training, one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from benchmarks.environments import NoEnvironment, python_of
from benchmarks.kept import KeptRows
from benchmarks.peers.catalogue import CHANNELS, OURS, PEERS, Case, Peer, parse_case
from benchmarks.peers.jobs import Answer, Limits, PeerFailed, ask, exported
from benchmarks.peers.ours import METHODS, Ours
from benchmarks.peers.score import check_runs, score, with_dense
from benchmarks.peers.table import OUR_LAYERS, OWN_LAYERS, Row, failure, markdown, success, text, with_times
from benchmarks.subject import Subject


def say(line: str) -> None:
    print(f"# {line}", file=sys.stderr, flush=True)


class Comparison:
    """One model under several seeds of the calibration data; nothing is loaded before a row is missing."""

    def __init__(self, name: str, arguments: argparse.Namespace, kept: KeptRows[Row], stack: ExitStack) -> None:
        self.name, self.arguments, self.kept, self.stack = name, arguments, kept, stack
        self.limits = Limits(seconds=arguments.limit)

    @cached_property
    def subjects(self) -> list[Subject]:
        a = self.arguments
        return [Subject(self.name, samples=a.samples, test_samples=a.test_samples, seed=seed) for seed in a.seeds]

    @cached_property
    def ours(self) -> list[Ours]:
        return [Ours(subject) for subject in self.subjects]

    @cached_property
    def folders(self) -> list[Path]:
        return [self.stack.enter_context(exported(subject)) for subject in self.subjects]

    def rows(self, case: Case, tools: Sequence[str], methods: Sequence[str]) -> Iterator[Row]:
        a = self.arguments
        drawn = (a.samples, a.test_samples, a.seeds, a.limit)
        for tool in tools:
            known = METHODS if tool == OURS else PEERS[tool].methods
            for method in known.get(case.kind, ()):
                if tool == OURS:
                    yield from self.kept.rows(
                        (self.name, case, OURS, method, *drawn), partial(self.prunec, case, method)
                    )
                elif not methods or method in methods:
                    key = (self.name, case, tool, PEERS[tool].version, method, *drawn)
                    yield from self.kept.rows(key, partial(self.peer, case, PEERS[tool], method))

    def prunec(self, case: Case, method: str) -> Iterator[Row]:
        answers = [ours.prune(case, method) for ours in self.ours]
        yield self.judged(case, OURS, method, OUR_LAYERS, answers)

    def peer(self, case: Case, peer: Peer, method: str) -> Iterator[Row]:
        tool = f"{peer.name} {peer.version}"
        try:
            python = python_of(peer.name, peer.requirements, say)
            answers = [
                ask(python, peer.runner, folder, subject, case, method, self.limits)
                for subject, folder in zip(self.subjects, self.folders, strict=True)
            ]
            for subject, answer in zip(self.subjects, answers, strict=True):
                check_runs(subject, answer.model)
            yield self.judged(case, tool, method, OWN_LAYERS, answers)
        except (NoEnvironment, PeerFailed) as reason:
            yield failure(self.subjects, case, tool, method, str(reason))
            return
        if case.kind == CHANNELS:
            return
        again = [with_dense(subject, a.model) for subject, a in zip(self.subjects, answers, strict=True)]
        if all(model is not None for model in again):
            judged = [Answer(model, a.seconds) for model, a in zip(again, answers, strict=True) if model is not None]
            yield self.judged(case, tool, method, OUR_LAYERS, judged)

    def judged(self, case: Case, tool: str, method: str, layers: str, answers: Sequence[Answer]) -> Row:
        scores = [score(subject, answer.model) for subject, answer in zip(self.subjects, answers, strict=True)]
        seconds = float(np.mean([answer.seconds for answer in answers]))
        return success(self.subjects, case, tool, method, layers, scores, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description="prunec beside other tools on the same models, data and metric.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--peers", nargs="+", default=[OURS, *PEERS], choices=[OURS, *PEERS])
    parser.add_argument("--cases", nargs="+", default=["2:4", "channels@0.3", "channels@0.5"], type=parse_case)
    parser.add_argument("--methods", nargs="+", default=[], help="of the peers (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the calibration data")
    parser.add_argument("--samples", type=int, help="calibration samples (default: by the model's cost)")
    parser.add_argument("--test-samples", type=int, help="test samples of the metric (default: the metric's own)")
    parser.add_argument("--limit", type=int, default=600, help="seconds of processor time that a peer may take")
    parser.add_argument("--keep", type=Path, help="a file of rows: those in it are not computed again")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    table: list[Row] = []
    kept = KeptRows(Row, arguments.keep)
    for name in arguments.models:
        with ExitStack() as stack:
            comparison = Comparison(name, arguments, kept, stack)
            for case in arguments.cases:
                for row in comparison.rows(case, arguments.peers, arguments.methods):
                    table = with_times([*table, row])
                    print(text(table[-1]), flush=True)
                    if arguments.markdown:
                        arguments.markdown.write_text(markdown(table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
