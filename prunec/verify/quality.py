"""What pruning cost, against the original dense model.

With a metric of the user's, its value on both models and the drop. Without one, agreement with the dense model on held
out inputs, one `Agreement` per output; the reported number is that of the worst output:

    top1_agreement   where an output is rows of class scores and the dense model's answers differ between inputs
    equal            where an output is integers
    fidelity         where an output is one number per sample: 1 − relative error
    cosine           otherwise

All numbers are higher-is-better, so `drop = dense − pruned`; the dense model agrees with itself, hence its 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from prunec.diagnostics import GateError, PrunecError
from prunec.verify.bounds import upper_mean
from prunec.verify.inputs import Run
from prunec.verify.margins import Remembered, samples_in, upper_drop
from prunec.verify.metrics import Agreement, is_inexact
from prunec.verify.records import QualityRecord
from prunec.verify.user_metric import Metric, evaluate

Feeds = Mapping[str, np.ndarray]


def quality_by_metric(
    metric: Metric, before: Mapping[str, float], pruned: Run, *, dense: Remembered | None = None,
    samples: int | None = None,
) -> QualityRecord:  # fmt: skip
    """The user's number for both models; `others` holds the rest of what the metric returned.

    `before` is what `evaluate` found on the dense model: found first, since a metric that fails should do so before
    any work is done. With the model itself (`dense`) the drop has a bound, for which the metric is asked
    `margins.GROUPS` times more.

    Raises:
        PrunecError PC351: the metric fails, or does not return the same numbers for both models.
    """
    seen, answers = 0, pruned if dense is None else Remembered(pruned)

    def counted(feeds: Feeds) -> dict[str, np.ndarray]:
        nonlocal seen
        seen += samples_in(feeds)
        return answers(feeds)

    after = evaluate(metric, counted, samples=samples)
    if list(before) != list(after):
        raise PrunecError("PC351", f"it returns {sorted(after)} after {sorted(before)}", where="--metric")
    name = next(iter(before))
    others = {f"{which}_{key}": numbers[key]
              for key in list(before)[1:] for which, numbers in (("dense", before), ("pruned", after))}  # fmt: skip

    def primary(run: Run) -> float:
        return evaluate(metric, run, samples=samples)[name]

    upper = None if dense is None else upper_drop(primary, dense, answers, before[name], after[name], seen)
    return QualityRecord(
        metric=name,
        dense=before[name],
        pruned=after[name],
        drop=before[name] - after[name],
        drop_upper=upper,
        data="user",
        samples=samples or seen or None,
        others=others or None,
    )


def quality_by_agreement(
    dense: Run, pruned: Run, batches: Iterable[Feeds], *, data: Literal["synthetic", "calibration"]
) -> QualityRecord | None:
    """Agreement on `batches`, streamed: one batch is in memory at a time. None if every output is empty on all of them.

    Raises:
        GateError PC502: the pruned model answers NaN or infinity where the dense model does not, or lost an output.
    """
    outputs: dict[str, Agreement] = {}
    for feeds in batches:
        expected, found = dense(feeds), pruned(feeds)
        for name, y in expected.items():
            z = found.get(name)
            if z is None:
                raise GateError("PC502", "the pruned model lost an output", where=name)
            _check_finite(name, y, z)
            outputs.setdefault(name, Agreement()).add(y, z)
    numbers = {name: agreement.numbers() for name, agreement in outputs.items() if agreement.elements}
    if not numbers:
        return None
    worst = min(numbers, key=lambda name: next(iter(numbers[name].values())))
    primary, value = next(iter(numbers[worst].items()))
    named = {
        (key if len(numbers) == 1 else f"{name}.{key}"): number
        for name, found in numbers.items()
        for key, number in found.items()
    }
    metric = primary if len(numbers) == 1 else f"{worst}.{primary}"
    return QualityRecord(
        metric=metric,
        dense=1.0,
        pruned=value,
        drop=1.0 - value,
        drop_upper=None if (losses := outputs[worst].losses()) is None else upper_mean(losses),
        data=data,
        samples=outputs[worst].samples,
        others={key: number for key, number in named.items() if key != metric} or None,
    )


def _check_finite(name: str, dense: np.ndarray, pruned: np.ndarray) -> None:
    if is_inexact(dense) and np.isfinite(dense).all() and not np.isfinite(pruned).all():
        raise GateError(
            "PC502",
            "the pruned model answers NaN or infinity where the dense model does not",
            where=name,
            hint="prune less, or try --no-compensate",
        )
