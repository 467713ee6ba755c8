"""prunec at the same pattern or share, through the same code as the other tables.

"balanced" and "fast" are efforts of the solvers, stem, depthwise convolutions and head dense. "same share" cuts that
share of every group; "by loss", the default of a compile, spends the multiply-accumulates that this leaves where the
outputs lose least.
"""

from __future__ import annotations

import time

from benchmarks.channel_quality import Scored
from benchmarks.pattern_quality import solved
from benchmarks.peers.catalogue import CHANNELS, NM, UNSTRUCTURED, Case
from benchmarks.peers.jobs import Answer
from benchmarks.subject import Subject
from prunec.patterns import parse

METHODS = {NM: ("balanced",), UNSTRUCTURED: ("balanced",), CHANNELS: ("same share", "by loss")}


class Ours:
    """One subject; statistics that score channels are collected once and counted once, to the first cut."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._scored: Scored | None = None

    def prune(self, case: Case, method: str) -> Answer:
        start = time.process_time()
        if case.kind == CHANNELS:
            self._scored = self._scored or Scored(self.subject)
            alive = self._scored.alive("obs", case.share, "layer" if method == "same share" else "loss")
            model = self._scored.compensated(alive, "auto").model
        else:
            model = solved(self.subject, parse(case.kind), case.share, "ours", "balanced", "uniform").model
        return Answer(model, time.process_time() - start)
