"""Why runs of a training ended before their schedules did, in a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_WHY: Mapping[str, str] = {
    "no progress": "the error on samples that watch had stopped falling",
    "time": "the minutes were over, as steps took longer than was counted on",
    "diverged": "it diverged, also at smaller steps",
    "interrupted": "it was interrupted",
}


def early_ends(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of the runs of a `RecoveryRecord`; empty where every schedule, or a plan's part of it, ended as it should."""
    ended = [run for run in runs if run["stopped"] in _WHY and run["done"] < run["of"]]
    if len(ended) == 1:
        (run,) = ended
        return f"{run['name']} ended at step {run['done']} of {run['of']}: {_WHY[run['stopped']]}."
    if not ended:
        return ""
    reasons = Counter(run["stopped"] for run in ended)
    return (
        f"{len(ended)} of {len(runs)} runs ended early: "
        + "; ".join(f"{count} because {_WHY[stop]}" for stop, count in reasons.most_common())
        + "."
    )
